//! The YAML files of a directory as documents, and whether they have changed.
//!
//! The directory is read whole every fifth of a second and compared by content: it holds a handful
//! of small files, and that works on every file system, for every way an editor saves. Time stamps
//! miss two edits in one tick; change notifications miss network file systems and renames of the
//! directory itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::yaml;

/// The largest file that is read, in bytes: a manifest with 64 claims takes a few KiB.
const FILE_MAX: u64 = 1 << 20;

/// Most files of a directory.
const FILES_MAX: usize = 1000;

/// A document and the file it stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The file's name.
    pub file: String,
    /// Its content.
    pub value: Value,
}

impl Document {
    /// The documents of a file's text, or what is wrong with it.
    pub fn read(file: &str, text: &str) -> Result<Vec<Self>, String> {
        let values = yaml::documents(text)?;
        Ok(values.into_iter().map(|value| Self { file: file.to_owned(), value }).collect())
    }
}

/// Something in a file that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file's name.
    pub file: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A directory of YAML files.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// What was read of each file last, and the documents that it gave. While a file can't be
    /// parsed, those it gave before stay: a slip of the hand stops nothing.
    seen: BTreeMap<String, Seen>,
    first: bool,
}

#[derive(Debug, Default)]
struct Seen {
    /// `None`: not read yet.
    text: Option<Result<String, String>>,
    documents: Vec<Value>,
    problem: Option<String>,
}

impl Files {
    /// Looks at this directory from now on.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: BTreeMap::new(), first: true }
    }

    /// Reads the directory; whether anything has changed since the last time.
    pub fn poll(&mut self) -> std::io::Result<bool> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let extension = Path::new(&name).extension().and_then(|e| e.to_str());
            if matches!(extension, Some("yaml" | "yml")) && !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        names.truncate(FILES_MAX);
        let before = self.seen.len();
        self.seen.retain(|name, _| names.contains(name));
        let mut changed = std::mem::take(&mut self.first) || self.seen.len() != before;
        for name in names {
            let text = read(&self.path.join(&name));
            let seen = self.seen.entry(name).or_default();
            if seen.text.as_ref() == Some(&text) {
                continue;
            }
            let was = (std::mem::take(&mut seen.problem), seen.documents.clone());
            match text.as_ref().map_err(Clone::clone).and_then(|text| yaml::documents(text)) {
                Ok(documents) => seen.documents = documents,
                Err(problem) => seen.problem = Some(problem),
            }
            changed |= was != (seen.problem.clone(), seen.documents.clone());
            seen.text = Some(text);
        }
        Ok(changed)
    }

    /// Every document, by file name and then in order.
    pub fn documents(&self) -> Vec<Document> {
        let of = |(file, seen): (&String, &Seen)| {
            let file = file.clone();
            seen.documents
                .clone()
                .into_iter()
                .map(move |value| Document { file: file.clone(), value })
        };
        self.seen.iter().flat_map(of).collect()
    }

    /// Every file that can't be read or parsed.
    pub fn problems(&self) -> Vec<Problem> {
        let of = |(file, seen): (&String, &Seen)| {
            Some(Problem { file: file.clone(), message: seen.problem.clone()? })
        };
        self.seen.iter().filter_map(of).collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let io = |e: std::io::Error| format!("can't be read: {e}");
    let file = fs::File::open(path).map_err(io)?;
    let mut text = String::new();
    let length = file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(io)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(format!("is larger than {FILE_MAX} bytes: split it"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_breaks_keeps_what_it_said_before_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path());
        assert!(files.poll().unwrap(), "the first look is a change");
        assert!(!files.poll().unwrap());
        fs::write(dir.path().join("a.yaml"), "kind: A\n---\nkind: B\n---\n").unwrap();
        assert!(files.poll().unwrap());
        assert_eq!(files.documents().len(), 2);
        assert!(!files.poll().unwrap());
        fs::write(dir.path().join("a.yaml"), "kind: [").unwrap();
        assert!(files.poll().unwrap());
        assert_eq!(files.documents().len(), 2);
        assert!(files.problems()[0].message.contains("is no YAML"));
        assert!(!files.poll().unwrap());
        fs::write(dir.path().join("a.yaml"), "kind: C").unwrap();
        assert!(files.poll().unwrap());
        assert_eq!((files.documents().len(), files.problems().len()), (1, 0));
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert!(files.poll().unwrap());
        assert!(files.documents().is_empty());
    }

    #[test]
    fn a_huge_file_and_one_with_a_name_twice_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), "x".repeat(2 << 20)).unwrap();
        fs::write(dir.path().join("b.yaml"), "kind: A\nkind: B\n").unwrap();
        let mut files = Files::new(dir.path());
        files.poll().unwrap();
        let problems = files.problems();
        assert!(problems[0].message.contains("split it"), "{problems:?}");
        assert!(problems[1].message.contains("duplicate"), "{problems:?}");
    }
}
