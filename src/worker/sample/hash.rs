//! `{"path": DIR or FILE}` -> the SHA-256 of every file below, and one over all of them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Failure, text};

const FILES_MAX: usize = 10_000;

pub(super) fn compute(input: &Value) -> Result<Value, Failure> {
    let root = Path::new(text(input, "path")?);
    let mut files = Vec::new();
    list(root, &mut files)?;
    files.sort();
    let mut all = Sha256::new();
    let mut rows = Vec::new();
    let mut bytes_total = 0;
    for path in &files {
        let (hash, bytes) = hash_file(path)?;
        let name = path.strip_prefix(root).ok().filter(|name| !name.as_os_str().is_empty());
        let name = name.unwrap_or(path).display().to_string();
        // The line `sha256sum` prints, so that the total can be made by hand.
        all.update(format!("{hash}  {name}\n"));
        bytes_total += bytes;
        rows.push(json!({ "path": name, "sha256": hash, "bytes": bytes }));
    }
    let total = hex(&all.finalize());
    Ok(json!({ "files": rows, "count": files.len(), "bytes": bytes_total, "sha256": total }))
}

fn list(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |error| Failure::reading(path, &error);
    let kind = fs::symlink_metadata(path).map_err(failed)?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(failed)? {
            list(&entry.map_err(failed)?.path(), into)?;
        }
    } else if kind.is_file() {
        if into.len() == FILES_MAX {
            return Err(Failure::Input(format!("more than {FILES_MAX} files")));
        }
        into.push(path.to_owned());
    }
    // Links are left alone: they may lead anywhere, in circles too.
    Ok(())
}

fn hash_file(path: &Path) -> Result<(String, u64), Failure> {
    let failed = |error| Failure::reading(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok((hex(&hasher.finalize()), bytes));
        }
        hasher.update(&buffer[..n]);
        bytes += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "abc").unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/b"), "").unwrap();
        let result = compute(&json!({ "path": dir.path() })).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(result["files"][0], json!({"path": "a", "sha256": abc, "bytes": 3}));
        assert_eq!(result["files"][1]["path"], "d/b");
        assert_eq!(result["files"][1]["sha256"], empty);
        let lines = format!("{abc}  a\n{empty}  d/b\n");
        assert_eq!(result["sha256"], hex(&Sha256::digest(lines)));
    }

    #[test]
    fn bad_input_and_missing_files_differ() {
        assert!(matches!(compute(&json!({})), Err(Failure::Input(_))));
        assert!(matches!(compute(&json!({"path": "/no/such"})), Err(Failure::Io(_))));
    }
}
