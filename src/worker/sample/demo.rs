//! Real input for the samples: files under a directory, and tasks that work on them. Everything
//! depends on the number of the task alone, so that whoever sees a result can compute it again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Sample, thumbnail};

/// What takes turns: samples that work on files.
const KINDS: [Sample; 3] = [Sample::Hash, Sample::Wordcount, Sample::Thumbnail];
/// Texts and pictures that are made; tasks take turns on them.
const FILES: u64 = 12;
const WORDS: [&str; 16] = [
    "leader", "follower", "quorum", "log", "entry", "snapshot", "member", "node", "task", "epoch",
    "attempt", "lease", "term", "vote", "index", "commit",
];

/// Writes the input files below `dir`; files that are there stay.
///
/// # Errors
/// What the file system says.
pub fn prepare(dir: &Path) -> io::Result<()> {
    for folder in ["texts", "pictures", "thumbnails"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    for number in 0..FILES {
        write_new(&text_path(dir, number), || text(number).into_bytes())?;
        let recipe = json!({ "width": 320 + 40 * number, "height": 240, "seed": number });
        let picture = || thumbnail::picture(&recipe).expect("the recipe is within bounds");
        write_new(&picture_path(dir, number), picture)?;
    }
    Ok(())
}

fn write_new(path: &Path, content: impl FnOnce() -> Vec<u8>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // Renamed when whole: a worker must never see half a file.
    let part = path.with_extension("part");
    fs::write(&part, content())?;
    fs::rename(&part, path)
}

fn text_path(dir: &Path, number: u64) -> PathBuf {
    dir.join("texts").join(format!("{:02}.txt", number % FILES))
}

fn picture_path(dir: &Path, number: u64) -> PathBuf {
    dir.join("pictures").join(format!("{:02}.pgm", number % FILES))
}

/// Some hundred lines of words, in an order that the number decides.
fn text(number: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    for place in 1..=4000 + number * 100 {
        // Marsaglia's xorshift: even enough for words.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state % WORDS.len() as u64) as usize]);
        text.push(if place % 12 == 0 { '\n' } else { ' ' });
    }
    text
}

/// The body that submits the `number`-th task, over the files that [`prepare`] made in `dir`.
#[must_use]
pub fn task(dir: &Path, number: u64) -> Value {
    let kinds = KINDS.len() as u64;
    let (sample, turn) = (KINDS[(number % kinds) as usize], number / kinds);
    let input = match sample {
        Sample::Hash => json!({ "path": dir.join("texts") }),
        Sample::Wordcount => json!({ "path": text_path(dir, turn), "top": 5 }),
        Sample::Tune => json!({ "function": "branin", "seed": turn }),
        Sample::Thumbnail => json!({
            "path": picture_path(dir, turn),
            "max_size": 48 + 16 * (turn % 4),
            "out": dir.join("thumbnails").join(format!("{turn:06}.pgm")),
        }),
    };
    json!({
        "task_type": sample.as_str(),
        "input_data": input,
        "requirements": { "capabilities": [sample.as_str()] },
        "timeout": 30,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_can_be_computed_and_gives_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        prepare(dir.path()).unwrap();
        for number in 0..9 {
            let task = task(dir.path(), number);
            let sample = KINDS[(number % 3) as usize];
            assert_eq!(task["task_type"], sample.as_str());
            let result = sample.compute(&task["input_data"]).unwrap();
            assert_eq!(sample.compute(&task["input_data"]).unwrap(), result);
        }
        assert_eq!(fs::read_dir(dir.path().join("thumbnails")).unwrap().count(), 3);
    }
}
