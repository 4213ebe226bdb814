//! Splits a command line into words like a POSIX shell, without running a shell.

/// The reason that a command line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsplittable {
    #[error("a quotation mark is not closed")]
    Quote,
    #[error("nothing follows the last backslash")]
    Escape,
    #[error("it is empty")]
    Empty,
    #[error("it contains a null character")]
    Null,
}

/// Splits at white space outside quotes. Quotes and backslashes have the meaning of the POSIX shell (2.2, Quoting).
/// Nothing is expanded: `$`, `*` and `~` are ordinary characters.
pub(super) fn split(line: &str) -> Result<Vec<String>, Unsplittable> {
    if line.contains('\0') {
        return Err(Unsplittable::Null);
    }
    let mut words = Vec::new();
    // A word begins at its first character or quote, so `''` is an empty word.
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().ok_or(Unsplittable::Quote)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => match characters.next().ok_or(Unsplittable::Escape)? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() {
        return Err(Unsplittable::Empty);
    }
    Ok(words)
}

/// Reads up to the closing double quote. A backslash escapes only the characters that are special in double quotes.
fn quoted(
    characters: &mut impl Iterator<Item = char>,
    word: &mut String,
) -> Result<(), Unsplittable> {
    loop {
        match characters.next().ok_or(Unsplittable::Quote)? {
            '"' => return Ok(()),
            '\\' => match characters.next().ok_or(Unsplittable::Quote)? {
                '\n' => {}
                c @ ('$' | '`' | '"' | '\\') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_splits_it() {
        for (line, expected) in [
            (
                "/bin/token --format json",
                &["/bin/token", "--format", "json"][..],
            ),
            ("  a\t b\nc ", &["a", "b", "c"]),
            ("'/opt/my token' \"a b\"", &["/opt/my token", "a b"]),
            ("a\\ b c", &["a b", "c"]),
            ("--name='a b'\"c d\"e", &["--name=a bc de"]),
            ("a '' \"\" b", &["a", "", "", "b"]),
            (r#""a\"b\\c\d\$e""#, &[r#"a"b\c\d$e"#]),
            (r"'a\b'", &[r"a\b"]),
            ("a\\\nb", &["ab"]),
            // No shell is involved: nothing is expanded, and operators are ordinary characters.
            (
                "a $HOME * ~ ;rm -rf | b && c",
                &["a", "$HOME", "*", "~", ";rm", "-rf", "|", "b", "&&", "c"],
            ),
            ("à 'ü'", &["à", "ü"]),
        ] {
            assert_eq!(split(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_command_line_that_a_shell_rejects_is_an_error() {
        for (line, expected) in [
            ("a 'b", Unsplittable::Quote),
            ("a \"b", Unsplittable::Quote),
            ("a \"b\\", Unsplittable::Quote),
            ("a \\", Unsplittable::Escape),
            ("", Unsplittable::Empty),
            (" \n ", Unsplittable::Empty),
            ("a\0b", Unsplittable::Null),
        ] {
            assert_eq!(split(line), Err(expected), "{line:?}");
        }
    }
}
