//! A chart as a picture that stands alone: no scripts, no fonts of its own, nothing is fetched.

use std::fmt::Write as _;

use super::Chart;
use super::scale::Scale;
use crate::cli::figures::figure;

const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 460.0;
/// What the picture leaves around the plot.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 58.0;
/// The longest title, in letters.
const TITLE_MAX: usize = 70;

const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#3a4452}\
.title{font-size:18px;font-weight:600;fill:#1c2430}.grid{stroke:#e4e8ed}.axis{stroke:#8994a3}\
.best{fill:none;stroke:#1f5fbf;stroke-width:2.5;stroke-linejoin:round}\
.one{fill:#e07b39;fill-opacity:.65}.target{stroke:#1a7f4b;stroke-width:1.5;stroke-dasharray:6 4}";

/// Text as it may stand in XML: no markup, and none of the characters that XML has no place for.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

fn shortened(title: &str) -> String {
    if title.chars().count() <= TITLE_MAX {
        return title.to_owned();
    }
    title.chars().take(TITLE_MAX - 1).chain(['…']).collect()
}

/// Where things are in the picture.
struct Plane {
    across: Scale,
    up: Scale,
}

impl Plane {
    fn x(&self, iteration: f64) -> f64 {
        LEFT + self.across.place(iteration) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, score: f64) -> f64 {
        HEIGHT - BOTTOM - self.up.place(score) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The picture, with scores by orders of magnitude if they have any and that is asked for.
    pub(in crate::cli) fn svg(&self, logarithmic: bool) -> String {
        let orders = self.vertical(true).filter(|_| logarithmic);
        let (label, up) = match (orders, self.vertical(false)) {
            (Some(up), _) => ("score (log)", up),
            (None, Some(up)) => ("score", up),
            (None, None) => ("score", Scale::linear(0.0, 1.0)),
        };
        let plane = Plane { across: Scale::counts(self.iterations), up };
        let (title, summary) = (escape(&self.title), escape(&self.summary()));
        let shown = escape(&shortened(&self.title));
        // Writing to a String cannot fail.
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n<title>{title}</title>\n\
             <desc>{summary}</desc>\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"30\">{shown}</text>\n\
             <text x=\"{LEFT}\" y=\"52\">{summary}</text>\n"
        );
        axes(&mut out, &plane, label);
        self.data(&mut out, &plane);
        self.legend(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn data(&self, out: &mut String, plane: &Plane) {
        if let Some(target) = self.target {
            let (y, end) = (plane.y(target), WIDTH - RIGHT);
            let _ = writeln!(
                out,
                "<line class=\"target\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
        }
        for (iteration, score) in &self.scores {
            let (x, y) = (plane.x(f64::from(*iteration)), plane.y(*score));
            let _ = writeln!(
                out,
                "<circle class=\"one\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
                figure(*score)
            );
        }
        let point = |(iteration, score): &(u32, f64)| {
            format!("{:.1},{:.1}", plane.x(f64::from(*iteration)), plane.y(*score))
        };
        let line: Vec<String> = self.best.iter().map(point).collect();
        let _ = writeln!(out, "<polyline class=\"best\" points=\"{}\"/>", line.join(" "));
        // A line of one point is none.
        for (iteration, score) in self.best.iter().take(usize::from(self.best.len() == 1)) {
            let (x, y) = (plane.x(f64::from(*iteration)), plane.y(*score));
            let (from, to) = (x - 8.0, x + 8.0);
            let _ = writeln!(
                out,
                "<line class=\"best\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
        }
    }

    fn legend(&self, out: &mut String) {
        let y = HEIGHT - 14.0;
        let mut x = LEFT;
        let mut entry = |sign: &str, text: &str, width: f64| {
            let _ = writeln!(
                out,
                "<g transform=\"translate({x} {y})\">{sign}<text x=\"30\" y=\"0\">{text}</text></g>"
            );
            x += width;
        };
        let line = |class: &str| format!("<line class=\"{class}\" x2=\"22\" y1=\"-4\" y2=\"-4\"/>");
        entry(&line("best"), "best so far", 130.0);
        entry("<circle class=\"one\" cx=\"11\" cy=\"-4\" r=\"4\"/>", "a candidate", 130.0);
        if let Some(target) = self.target {
            entry(&line("target"), &format!("target {}", figure(target)), 130.0);
        }
    }
}

/// The lines of the grid with what is written beside them, and the names of the axes.
fn axes(out: &mut String, plane: &Plane, label: &str) {
    let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in plane.up.ticks() {
        let y = plane.y(*tick);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 9.0,
            y + 4.5,
            figure(*tick)
        );
    }
    for tick in plane.across.ticks() {
        let x = plane.x(*tick);
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 5.0,
            bottom + 20.0,
            figure(*tick)
        );
    }
    let middle = f64::midpoint(TOP, bottom);
    let _ = writeln!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
         <text x=\"{end}\" y=\"{:.1}\" text-anchor=\"end\">iteration</text>\
         <text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">{label}</text>",
        bottom + 44.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::chart::tests::chart;

    fn number(node: roxmltree::Node<'_, '_>, name: &str) -> f64 {
        node.attribute(name).unwrap().parse().unwrap()
    }

    #[test]
    fn pictures_are_well_formed_and_everything_is_within_them() {
        let cases: [&[&[f64]]; 6] = [
            &[],
            &[&[]],
            &[&[0.5]],
            &[&[300.0, 2.0, 17.0], &[0.9, 0.4], &[0.4]],
            &[&[-3.5, -1e-9], &[1e12]],
            &[&[7.0, 7.0], &[7.0]],
        ];
        for scores in cases {
            for logarithmic in [false, true] {
                let mut chart = chart("c", true, scores);
                chart.target = Some(0.398);
                let text = chart.svg(logarithmic);
                let document = roxmltree::Document::parse(&text).unwrap();
                let all = |class: &'static str| {
                    let nodes = document.descendants();
                    nodes.filter(move |node| node.attribute("class") == Some(class))
                };
                // One more is in the legend.
                let count: usize = scores.iter().map(|scores| scores.len()).sum();
                let dots: Vec<_> = all("one").collect();
                assert_eq!(dots.len(), count + 1, "{scores:?}");
                for dot in &dots[..count] {
                    let (x, y) = (number(*dot, "cx"), number(*dot, "cy"));
                    assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{x} {scores:?}");
                    assert!((TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y), "{y} {scores:?}");
                }
                assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            }
        }
    }

    #[test]
    fn hostile_names_are_text() {
        let names = [
            "</title><script>alert(1)</script>",
            "\"'><image href=x onerror=alert(1)>",
            "a & b ]]> \u{0} \u{1b}[31m \u{ffff}",
            "&lt;",
        ];
        for name in names {
            let text = chart(name, false, &[&[1.0, 2.0]]).svg(false);
            let document = roxmltree::Document::parse(&text).unwrap();
            let allowed = [
                "svg", "title", "desc", "style", "rect", "text", "line", "circle", "polyline", "g",
            ];
            for node in document.descendants().filter(roxmltree::Node::is_element) {
                let tag = node.tag_name().name();
                assert!(allowed.contains(&tag), "{name:?} made a <{tag}>");
                assert!(!node.attributes().any(|attribute| attribute.name().starts_with("on")));
            }
            let title = document.descendants().find(|node| node.has_tag_name("title")).unwrap();
            let clean = |letter: char| {
                if letter.is_control() || letter == '\u{ffff}' { '\u{fffd}' } else { letter }
            };
            let wanted: String = name.chars().map(clean).collect();
            assert_eq!(title.text(), Some(wanted.as_str()));
        }
    }

    #[test]
    fn long_names_are_cut() {
        let name = "ä".repeat(500);
        let text = chart(&name, false, &[&[1.0]]).svg(false);
        let document = roxmltree::Document::parse(&text).unwrap();
        let shown = document.descendants().find(|node| node.attribute("class") == Some("title"));
        assert_eq!(shown.unwrap().text().unwrap().chars().count(), TITLE_MAX);
    }
}
