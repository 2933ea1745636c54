//! The few shapes that the plots are made of, on one axis of time.

use std::fmt::Write as _;

/// Width of every plot, in pixels.
pub(super) const WIDTH: f64 = 1280.0;
/// Left of it stand labels.
pub(super) const LEFT: f64 = 120.0;
const RIGHT: f64 = 16.0;

/// From time to place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) begin_ns: u64,
    pub(super) end_ns: u64,
}

impl Axis {
    /// The whole of a history.
    pub(super) fn new(begin_ns: u64, end_ns: u64) -> Self {
        Self { begin_ns, end_ns: end_ns.max(begin_ns + 1_000_000) }
    }

    pub(super) fn x(self, ns: u64) -> f64 {
        let part = ns.saturating_sub(self.begin_ns) as f64 / (self.end_ns - self.begin_ns) as f64;
        LEFT + part.min(1.0) * (WIDTH - LEFT - RIGHT)
    }

    pub(super) fn seconds(self) -> f64 {
        (self.end_ns - self.begin_ns) as f64 / 1e9
    }

    /// Round times that are not too close to each other, in ns.
    fn ticks(self) -> Vec<u64> {
        let steps = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
        let wanted = self.seconds() / 14.0;
        let step = steps.into_iter().find(|step| *step >= wanted).unwrap_or(3600.0);
        let first = (self.begin_ns as f64 / 1e9 / step).ceil() as u64;
        let at = |n: u64| (n as f64 * step * 1e9) as u64;
        (first..).map(at).take_while(|ns| *ns <= self.end_ns).collect()
    }
}

/// A picture that grows.
#[derive(Debug, Default)]
pub(super) struct Picture {
    body: String,
    height: f64,
}

impl Picture {
    pub(super) fn new(height: f64) -> Self {
        Self { body: String::new(), height }
    }

    /// A box; `title` shows when the pointer rests on it.
    pub(super) fn rect(&mut self, at: [f64; 4], class: &str, title: &str) {
        let [x, y, width, height] = at;
        let _ = write!(
            self.body,
            "<rect x='{x:.1}' y='{y:.1}' width='{:.1}' height='{height:.1}' class='{class}'>",
            width.max(0.8)
        );
        if !title.is_empty() {
            let _ = write!(self.body, "<title>{}</title>", escape(title));
        }
        self.body.push_str("</rect>");
    }

    pub(super) fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.body, "<text x='{x:.1}' y='{y:.1}' class='{class}'>{text}</text>");
    }

    pub(super) fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            let _ = write!(self.body, "<path d='{path}' class='{class}'/>");
        }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let path = format!("M{:.1} {:.1}L{:.1} {:.1}", from.0, from.1, to.0, to.1);
        self.path(class, &path);
    }

    /// Upright lines at round times, with their names below when `named`.
    pub(super) fn grid(&mut self, axis: Axis, named: bool) {
        let bottom = if named { self.height - 16.0 } else { self.height };
        for ns in axis.ticks() {
            let x = axis.x(ns);
            self.line((x, 0.0), (x, bottom), "grid");
            if named {
                let seconds = ns as f64 / 1e9;
                let text = if axis.seconds() < 5.0 {
                    format!("{seconds:.2} s")
                } else {
                    format!("{seconds:.0} s")
                };
                self.text(x, self.height - 4.0, "tick", &text);
            }
        }
    }

    pub(super) fn finish(self) -> String {
        let Self { body, height } = self;
        format!("<svg viewBox='0 0 {WIDTH:.0} {height:.0}' role='img'>{body}</svg>")
    }
}

/// Text as it stands in HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
