//! Suggestions for a misspelt name: the most similar known name.

/// Longer texts get no suggestion: the distance takes quadratic time, and input may be hostile.
const MAX_LEN: usize = 64;

/// Returns the candidate with the smallest Damerau-Levenshtein distance from `text`, if it is at most the candidate's
/// `max_edits`.
pub(crate) fn nearest<T: AsRef<str> + Ord>(
    text: &str,
    candidates: impl IntoIterator<Item = T>,
    max_edits: impl Fn(&str) -> usize,
) -> Option<T> {
    if text.len() > MAX_LEN {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(text, candidate.as_ref());
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance <= max_edits(candidate.as_ref()))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_within_the_limit_is_found() {
        let names = ["audience", "account", "scope"];
        assert_eq!(nearest("audiense", names, |_| 2), Some("audience"));
        assert_eq!(nearest("socpe", names, |_| 1), Some("scope"));
        assert_eq!(nearest("nothing", names, |_| 2), None);
        assert_eq!(nearest(&"a".repeat(65), names, |_| 100), None);
    }
}
