//! "Did you mean": the known word that a mistyped one is close to.

/// The candidate that needs the fewest edits, if they are few enough for a slip of the fingers.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters: `lisnters` finds `listeners`, `tls` does not find `url`.
    let allowed = |candidate: &str| (candidate.chars().count() / 3).max(1);
    let word: Vec<char> = word.to_lowercase().chars().collect();
    candidates
        .into_iter()
        .filter(|candidate| word.len().abs_diff(candidate.chars().count()) <= allowed(candidate))
        .map(|candidate| (edits(&word, candidate), candidate))
        .filter(|&(edits, candidate)| edits <= allowed(candidate))
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn edits(from: &[char], to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before_last = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, &a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a == to[j - 1] && from[i - 1] == b {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::closest;

    const WORDS: [&str; 5] = ["listeners", "tls", "url", "max_connections", "dmp"];

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(closest("lisnters", WORDS), Some("listeners"));
        assert_eq!(closest("tsl", WORDS), Some("tls"));
        assert_eq!(closest("dpm", WORDS), Some("dmp"));
        assert_eq!(closest("URL", WORDS), Some("url"));
        assert_eq!(closest("max-connections", WORDS), Some("max_connections"));
    }

    #[test]
    fn another_word_finds_nothing() {
        assert_eq!(closest("password", WORDS), None);
        assert_eq!(closest("", WORDS), None);
    }
}
