//! `{"path": PGM}` or `{"generate": {width, height, seed}}`, `max_size`, `out`? -> a grey image
//! averaged down so that neither side is above `max_size`, as a PGM file or as its SHA-256 alone.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Failure, number, text};

const SIDE_MAX: u64 = 20_000;
const PIXELS_MAX: u64 = 100_000_000;

/// An 8-bit grey image.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

pub(super) fn compute(input: &Value) -> Result<Value, Failure> {
    let side = number(input, "max_size", 64, SIDE_MAX)? as usize;
    let image = match input.get("generate") {
        Some(recipe) => generate(recipe)?,
        None => {
            let path = Path::new(text(input, "path")?);
            let bytes = fs::read(path).map_err(|error| Failure::reading(path, &error))?;
            parse(&bytes).map_err(|what| Failure::Input(format!("{}: {what}", path.display())))?
        }
    };
    let small = shrink(&image, side);
    let file = format_pgm(&small);
    let out = input.get("out").and_then(Value::as_str);
    if let Some(out) = out {
        let path = Path::new(out);
        fs::write(path, &file).map_err(|error| Failure::reading(path, &error))?;
    }
    let hash: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    let sum: u64 = small.pixels.iter().map(|pixel| u64::from(*pixel)).sum();
    Ok(json!({
        "source": { "width": image.width, "height": image.height },
        "width": small.width, "height": small.height,
        "mean": sum / small.pixels.len() as u64,
        "sha256": hash, "out": out,
    }))
}

/// The file of a generated picture.
pub(super) fn picture(recipe: &Value) -> Result<Vec<u8>, Failure> {
    generate(recipe).map(|image| format_pgm(&image))
}

/// A picture that depends on `seed` alone: rings around a point, so that a viewer shows at once
/// whether it was shrunk rightly.
fn generate(recipe: &Value) -> Result<Image, Failure> {
    let width = number(recipe, "width", 640, SIDE_MAX)?;
    let height = number(recipe, "height", 480, SIDE_MAX)?;
    let seed = recipe.get("seed").and_then(Value::as_u64).unwrap_or_default();
    check_size(width, height).map_err(Failure::Input)?;
    let (center_x, center_y) =
        (seed.wrapping_mul(7919) % width, seed.wrapping_mul(104_729) % height);
    let ring = 16 + seed % 48;
    let mut pixels = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (x.abs_diff(center_x), y.abs_diff(center_y));
            let distance = (dx * dx + dy * dy).isqrt();
            pixels.push((distance % ring * 255 / ring) as u8);
        }
    }
    Ok(Image { width: width as usize, height: height as usize, pixels })
}

fn check_size(width: u64, height: u64) -> Result<(), String> {
    let fits = (1..=SIDE_MAX).contains(&width) && (1..=SIDE_MAX).contains(&height);
    if fits && width * height <= PIXELS_MAX {
        return Ok(());
    }
    Err(format!("{width} x {height} pixels are out of bounds"))
}

/// Reads a binary PGM ("P5") of 8 bits.
fn parse(bytes: &[u8]) -> Result<Image, String> {
    let mut at = 0;
    let mut word = || {
        while at < bytes.len() && (bytes[at].is_ascii_whitespace() || bytes[at] == b'#') {
            let comment = bytes[at] == b'#';
            at += 1;
            while comment && at < bytes.len() && bytes[at] != b'\n' {
                at += 1;
            }
        }
        let start = at;
        while at < bytes.len() && !bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        let word = std::str::from_utf8(&bytes[start..at]).unwrap_or_default().to_owned();
        (word, at)
    };
    if word().0 != "P5" {
        return Err("not a binary PGM (P5)".to_owned());
    }
    let mut header = || {
        let (word, end) = word();
        word.parse().map(|number: u64| (number, end)).map_err(|_| format!("bad header: `{word}`"))
    };
    let ((width, _), (height, _), (max, end)) = (header()?, header()?, header()?);
    check_size(width, height)?;
    if max != 255 {
        return Err(format!("only 8-bit images are read, not a maximum of {max}"));
    }
    // One white-space byte ends the header.
    let pixels = bytes.get(end + 1..end + 1 + (width * height) as usize);
    let pixels = pixels.ok_or_else(|| "the file is cut short".to_owned())?.to_vec();
    Ok(Image { width: width as usize, height: height as usize, pixels })
}

fn format_pgm(image: &Image) -> Vec<u8> {
    let mut file = format!("P5\n{} {}\n255\n", image.width, image.height).into_bytes();
    file.extend_from_slice(&image.pixels);
    file
}

/// Each pixel of the result is the rounded mean of the pixels it stands for. In whole numbers, so
/// that every machine gets the same bytes.
fn shrink(image: &Image, side: usize) -> Image {
    let longest = image.width.max(image.height);
    if longest <= side {
        let pixels = image.pixels.clone();
        return Image { width: image.width, height: image.height, pixels };
    }
    let width = (image.width * side / longest).max(1);
    let height = (image.height * side / longest).max(1);
    let mut pixels = Vec::with_capacity(width * height);
    for y in 0..height {
        let rows = y * image.height / height..(y + 1) * image.height / height;
        for x in 0..width {
            let columns = x * image.width / width..(x + 1) * image.width / width;
            let count = (rows.len() * columns.len()) as u64;
            let line = |row: usize| &image.pixels[row * image.width..][columns.clone()];
            let sum: u64 = rows.clone().flat_map(line).map(|pixel| u64::from(*pixel)).sum();
            pixels.push(((sum + count / 2) / count) as u8);
        }
    }
    Image { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_averaged() {
        let image = Image { width: 4, height: 2, pixels: vec![0, 10, 20, 30, 10, 20, 30, 41] };
        assert_eq!(shrink(&image, 2), Image { width: 2, height: 1, pixels: vec![10, 30] });
        assert_eq!(shrink(&image, 4), image);
    }

    #[test]
    fn files_come_back_as_they_were_written() {
        let image = generate(&json!({"width": 31, "height": 17, "seed": 5})).unwrap();
        assert_eq!(parse(&format_pgm(&image)).unwrap(), image);
        let with_comment = b"P5 # made by hand\n2 1 255\n\x01\x02";
        assert_eq!(parse(with_comment).unwrap().pixels, [1, 2]);
        assert!(parse(b"P5 2 2 255\n\x01").unwrap_err().contains("cut short"));
        assert!(parse(b"P6 1 1 255\n\x01").is_err());
    }

    #[test]
    fn a_result_can_be_checked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("small.pgm");
        let input = json!({"generate": {"width": 200, "height": 100, "seed": 1},
                           "max_size": 50, "out": out});
        let result = compute(&input).unwrap();
        assert_eq!((&result["width"], &result["height"]), (&json!(50), &json!(25)));
        let written = fs::read(&out).unwrap();
        let hash: String = Sha256::digest(&written).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(result["sha256"], hash);
        assert_eq!(compute(&input).unwrap(), result);
    }
}
