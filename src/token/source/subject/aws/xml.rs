//! Parses the subset of XML that AWS STS sends: elements and text. Comments, processing instructions, CDATA sections
//! and document types are refused, so that no entity can be declared.

/// The maximum nesting depth.
const DEPTH: usize = 16;

/// The elements without children, in document order. Each has the path of names from the root.
#[derive(Debug)]
pub(super) struct Document(Vec<(Vec<String>, String)>);

struct Reader<'a> {
    rest: &'a str,
    open: Vec<String>,
    leaves: Vec<(Vec<String>, String)>,
}

/// Parses a whole document.
pub(super) fn parse(body: &[u8]) -> Option<Document> {
    let text = str::from_utf8(body).ok()?.trim_ascii();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rest = match text.strip_prefix("<?xml ") {
        Some(declared) => declared.split_once("?>")?.1.trim_ascii_start(),
        None => text,
    };
    let mut reader = Reader {
        rest,
        open: Vec::new(),
        leaves: Vec::new(),
    };
    loop {
        reader.element_begins()?;
        loop {
            if reader.open.is_empty() {
                return reader.rest.is_empty().then_some(Document(reader.leaves));
            }
            if !reader.rest.starts_with("</") {
                break;
            }
            reader.element_ends()?;
        }
    }
}

// === impl Document ===

impl Document {
    /// Returns the text of the element at this path, if there is exactly one.
    pub(super) fn only(&self, path: &[&str]) -> Option<String> {
        let mut found = self.0.iter().filter(|(names, _)| names == path);
        let (_, text) = found.next()?;
        found.next().is_none().then(|| text.clone())
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// Reads a start tag, and the text after it if an end tag follows.
    fn element_begins(&mut self) -> Option<()> {
        let (tag, rest) = self.rest.strip_prefix('<')?.split_once('>')?;
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, attributes) = tag
            .split_once(|c: char| c.is_ascii_whitespace())
            .unwrap_or((tag, ""));
        // XML permits a `>` inside a value, but AWS does not write it.
        let is_whole = |quote| attributes.matches(quote).count() % 2 == 0;
        let is_tag = is_name(name) && is_whole('"') && is_whole('\'') && !attributes.contains('<');
        if !is_tag || self.open.len() == DEPTH {
            return None;
        }
        self.open.push(name.to_owned());
        if is_empty {
            self.leaves.push((self.open.clone(), String::new()));
            self.open.pop();
            // Only white space is permitted between elements.
            self.rest = rest.trim_ascii_start();
            return Some(());
        }
        let (text, rest) = rest.split_at(rest.find('<')?);
        self.rest = rest;
        if self.rest.starts_with("</") {
            self.leaves.push((self.open.clone(), decoded(text)?));
            return Some(());
        }
        text.trim_ascii().is_empty().then_some(())
    }

    fn element_ends(&mut self) -> Option<()> {
        let (name, rest) = self.rest.strip_prefix("</")?.split_once('>')?;
        self.rest = rest.trim_ascii_start();
        (self.open.pop()? == name.trim_ascii_end()).then_some(())
    }
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

/// Replaces the predefined entity references.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut decoded = parts.next()?.to_owned();
    for part in parts {
        let (name, rest) = part.split_once(';')?;
        decoded.push(match name {
            "amp" => '&',
            "apos" => '\'',
            "gt" => '>',
            "lt" => '<',
            "quot" => '"',
            number => {
                let number = number.strip_prefix('#')?;
                char::from_u32(match number.strip_prefix('x') {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                })?
            }
        });
        decoded.push_str(rest);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(document: &str, path: &[&str]) -> Option<String> {
        parse(document.as_bytes())?.only(path)
    }

    #[test]
    fn the_text_of_an_element_is_found_by_its_path() {
        for (document, path, expected) in [
            ("<a>x</a>", &["a"][..], Some("x")),
            ("<a><b>x</b><c>y</c></a>", &["a", "c"], Some("y")),
            (
                " <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a >\n <b k=\"v\">1&amp;2&#65;&#x42;</b >\n</a>\n",
                &["a", "b"],
                Some("1&2AB"),
            ),
            ("<a></a>", &["a"], Some("")),
            ("<a/>", &["a"], Some("")),
            ("<a><b />\n<c>x</c></a>", &["a", "c"], Some("x")),
            ("<a><b>x</b><b>y</b></a>", &["a", "b"], None),
            ("<a><b>x</b></a>", &["a"], None),
            ("<a><b>x</b></a>", &["b"], None),
        ] {
            assert_eq!(only(document, path).as_deref(), expected, "{document}");
            assert!(parse(document.as_bytes()).is_some(), "{document}");
        }
    }

    #[test]
    fn malformed_xml_is_rejected() {
        for document in [
            "",
            "a",
            "<a>",
            "</a>",
            "<a></b>",
            "<a><b></a></b>",
            "<a></a><b></b>",
            "<a></a>x",
            "<a>x<b></b></a>",
            "<a><b></b>x</a>",
            "<a/>x",
            "<a k=\"<a k=\">\"></a>",
            "<a k=\">x</a>",
            "<>x</>",
            "<a>&unknown;</a>",
            "<a>&amp</a>",
            "<a>&#xd800;</a>",
            "<!DOCTYPE a><a></a>",
            "<a><!-- --></a>",
            "<a><![CDATA[x]]></a>",
            "<a><?p ?></a>",
            "<1></1>",
        ] {
            assert!(parse(document.as_bytes()).is_none(), "{document}");
        }
        let deep = "<a>".repeat(DEPTH + 1) + &"</a>".repeat(DEPTH + 1);
        assert!(parse(deep.as_bytes()).is_none());
    }
}
