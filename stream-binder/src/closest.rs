//! "Did you mean": the nearest of the names that exist.

/// The candidate nearest to `name` by edit distance, if it is near enough to be what was meant.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            // A third of the characters wrong is still a slip, more is another word.
            *distance <= (name.chars().count().max(candidate.chars().count()) / 3).clamp(1, 4)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours, regardless of case, dashes and underscores.
fn distance(a: &str, b: &str) -> usize {
    let fold = |name: &str| -> Vec<char> {
        name.chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .flat_map(char::to_lowercase)
            .collect()
    };
    let (a, b) = (fold(a), fold(b));
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut previous_char = None;
    for (i, &x) in a.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        let mut left = i + 1;
        for (j, (&y, cells)) in b.iter().zip(row.windows(2)).enumerate() {
            let &[diagonal, above] = cells else { continue };
            let mut cell = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            let swapped = j > 0 && previous_char == Some(y) && b.get(j - 1) == Some(&x);
            if let Some(earlier) = before.get(j.wrapping_sub(1)).filter(|_| swapped) {
                cell = cell.min(earlier + 1);
            }
            next.push(cell);
            left = cell;
        }
        before = std::mem::replace(&mut row, next);
        previous_char = Some(x);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name() {
        let names = ["producer-out-0", "consumer-in-0", "square-in-0"];
        assert_eq!(closest("prodcuer-out-0", names), Some("producer-out-0"));
        assert_eq!(closest("Consumer-in-0", names), Some("consumer-in-0"));
        assert_eq!(closest("sqare-in-0", names), Some("square-in-0"));
        assert_eq!(closest("billing", names), None);
    }

    #[test]
    fn distances_count_single_edits() {
        for (a, b, expected) in [
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
