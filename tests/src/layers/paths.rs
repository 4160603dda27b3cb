//! The paths that a Rust source names: `a::b::c`, with `use a::{b, c::d}` taken apart.
//!
//! A scanner, not a parser: comments and string literals are cut out, what is left is read as words.

/// A path as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its line, from 1.
    pub line: usize,
    /// Its words.
    pub words: Vec<String>,
    /// Whether it stands in code that only tests compile.
    pub in_test: bool,
}

/// Every path in `source` of at least two words.
pub fn named_in(source: &str) -> Vec<Named> {
    let code = without_comments_and_strings(source);
    let test_from = code.find("#[cfg(test)]").unwrap_or(code.len());
    let mut scanner = Scanner { code: code.as_bytes(), at: 0, found: Vec::new() };
    while scanner.at < scanner.code.len() {
        if scanner.word_begins() { scanner.path(&[]) } else { scanner.at += 1 }
    }
    scanner
        .found
        .into_iter()
        .filter(|(_, words)| words.len() > 1)
        .map(|(at, words)| Named {
            line: 1 + code[..at].matches('\n').count(),
            words,
            in_test: at >= test_from,
        })
        .collect()
}

struct Scanner<'a> {
    code: &'a [u8],
    at: usize,
    found: Vec<(usize, Vec<String>)>,
}

impl Scanner<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.code.get(at).copied().unwrap_or(0)
    }

    fn word_begins(&self) -> bool {
        let byte = self.byte(self.at);
        byte.is_ascii_alphabetic() || byte == b'_'
    }

    fn skip_blanks(&mut self) {
        while self.byte(self.at).is_ascii_whitespace() {
            self.at += 1;
        }
    }

    /// Reads a path whose first words are `before`, and notes it and what its braces hold.
    fn path(&mut self, before: &[String]) {
        let start = self.at;
        let mut words = before.to_vec();
        loop {
            let word = self.at;
            while self.byte(self.at).is_ascii_alphanumeric() || self.byte(self.at) == b'_' {
                self.at += 1;
            }
            words.push(String::from_utf8_lossy(&self.code[word..self.at]).into_owned());
            if self.byte(self.at) != b':' || self.byte(self.at + 1) != b':' {
                break;
            }
            self.at += 2;
            if self.byte(self.at) == b'{' {
                return self.group(&words);
            }
            if !self.word_begins() {
                break;
            }
        }
        self.found.push((start, words));
    }

    /// Reads `{a, b::c, d::{e}}` behind a path.
    fn group(&mut self, before: &[String]) {
        self.at += 1;
        loop {
            self.skip_blanks();
            match self.byte(self.at) {
                0 => return,
                b'}' => {
                    self.at += 1;
                    return;
                }
                _ if self.word_begins() => self.path(before),
                _ => self.at += 1,
            }
        }
    }
}

/// The same text with comments and the insides of strings blanked; lines stay where they are.
fn without_comments_and_strings(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source.chars().peekable();
    let (mut in_string, mut in_comment) = (false, false);
    while let Some(character) = rest.next() {
        match character {
            '\n' => {
                in_comment = false;
                code.push('\n');
            }
            _ if in_comment => code.push(' '),
            '\\' if in_string => {
                code.push(' ');
                // An escaped newline must still count as a line.
                code.push(if rest.next() == Some('\n') { '\n' } else { ' ' });
            }
            '"' => {
                in_string = !in_string;
                code.push('"');
            }
            _ if in_string => code.push(' '),
            // A quotation mark as a character literal opens no string.
            '\'' if rest.peek() == Some(&'"') => {
                rest.next();
                code.push(' ');
            }
            '/' if rest.peek() == Some(&'/') => {
                in_comment = true;
                code.push(' ');
            }
            // Columns do not matter here, but bytes that are no ASCII would make words.
            other => code.push(if other.is_ascii() { other } else { ' ' }),
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        named_in(source).into_iter().map(|named| named.words.join("::")).collect()
    }

    #[test]
    fn groups_are_taken_apart_across_lines() {
        let source = "use crate::{\n    disk::Disk,\n    units::{Epoch, self},\n};\n";
        assert_eq!(
            texts(source),
            ["crate::disk::Disk", "crate::units::Epoch", "crate::units::self"]
        );
        assert_eq!(named_in(source)[1].line, 3);
    }

    #[test]
    fn paths_in_expressions_count_and_those_in_comments_and_strings_do_not() {
        let source = "// crate::engine::x\nfn f() { let a = std::fs::read(\"tokio::net\"); }\n";
        assert_eq!(texts(source), ["std::fs::read"]);
        assert_eq!(texts("let q = '\"'; a::b(); // c::d"), ["a::b"]);
    }

    #[test]
    fn what_only_tests_compile_is_marked() {
        let named = named_in("use a::b;\n#[cfg(test)]\nmod tests { use c::d; }\n");
        assert_eq!(named.iter().map(|named| named.in_test).collect::<Vec<_>>(), [false, true]);
    }
}
