//! Words, sentences, key terms and extractive summaries: a summary is made of sentences that stand
//! in the text, chosen by how much its frequent words are in them. Nothing is invented.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

/// Sentences of one text that are weighed; later ones are not looked at.
const SENTENCES_MAX: usize = 20_000;

/// Words that say nothing about what a text is about. In order, for the search.
const STOP_WORDS: [&str; 120] = [
    "about", "above", "after", "again", "all", "also", "although", "always", "and", "another",
    "any", "are", "back", "because", "been", "before", "being", "between", "both", "but", "can",
    "come", "could", "did", "does", "doing", "down", "during", "each", "even", "every", "few",
    "for", "from", "further", "get", "going", "had", "has", "have", "having", "here", "him", "his",
    "how", "into", "its", "itself", "just", "kind", "know", "less", "like", "made", "make", "many",
    "may", "might", "more", "most", "much", "must", "new", "not", "now", "off", "one", "only",
    "other", "our", "out", "over", "own", "really", "said", "same", "say", "see", "she", "should",
    "since", "some", "still", "such", "take", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "thing", "things", "this", "those", "through", "too", "two", "under",
    "until", "very", "was", "way", "well", "were", "what", "when", "where", "which", "while",
    "who", "why", "will", "with", "would", "you", "your",
];

/// The words of a text that mean something, in lower case.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '\'')
        .map(|word| word.trim_matches(['-', '\'']).to_lowercase())
        .filter(|word| word.chars().count() > 2 && word.chars().any(char::is_alphabetic))
        .filter(|word| STOP_WORDS.binary_search(&word.as_str()).is_err())
}

/// How many words a text has, with all that say nothing.
pub(super) fn word_count(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The sentences of a text. A blank line ends one as well as a full stop does.
pub(super) fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut sentence = String::new();
        for word in paragraph.split_whitespace() {
            if !sentence.is_empty() {
                sentence.push(' ');
            }
            sentence.push_str(word);
            if ends_sentence(word) {
                sentences.push(std::mem::take(&mut sentence));
            }
            if sentences.len() == SENTENCES_MAX {
                return sentences;
            }
        }
        if !sentence.is_empty() {
            sentences.push(sentence);
        }
    }
    sentences
}

fn ends_sentence(word: &str) -> bool {
    let bare = word.trim_end_matches(['"', '\'', ')', ']', '”', '’']);
    match bare.strip_suffix('.') {
        // "J. Smith", "e.g. this": no end.
        Some(before) => before.chars().count() > 1 && !before.contains('.'),
        None => bare.ends_with(['!', '?', '…']),
    }
}

/// The most frequent words of several texts with their counts.
pub(super) fn key_terms<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    max: usize,
) -> Vec<(String, usize)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for word in texts.into_iter().flat_map(words) {
        *counts.entry(word).or_default() += 1;
    }
    let mut ranked: Vec<(String, usize)> = counts.into_iter().collect();
    ranked.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    ranked.truncate(max);
    ranked
}

/// Key terms for an output.
pub(super) fn terms_json(terms: &[(String, usize)]) -> Vec<Value> {
    terms.iter().map(|(term, count)| json!({ "term": term, "count": count })).collect()
}

/// The `max` sentences that say most, in the order of the text.
pub(super) fn summarize(text: &str, max: usize) -> Vec<String> {
    let sentences = sentences(text);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in sentences.iter().flat_map(|sentence| words(sentence)) {
        *counts.entry(word).or_default() += 1;
    }
    let mut weighed: Vec<(f64, usize)> = sentences
        .iter()
        .enumerate()
        .map(|(at, sentence)| (weight(sentence, &counts), at))
        .collect();
    weighed.sort_by(|(a, m), (b, n)| b.total_cmp(a).then(m.cmp(n)));
    let mut seen = BTreeSet::new();
    let mut chosen: Vec<usize> = Vec::new();
    for (_, at) in weighed {
        // What is said twice is told once.
        if chosen.len() < max && seen.insert(sentences[at].to_lowercase()) {
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|at| sentences[at].clone()).collect()
}

/// How frequent the words of a sentence are, each counted once; long sentences are not favoured.
fn weight(sentence: &str, counts: &BTreeMap<String, usize>) -> f64 {
    let words: BTreeSet<String> = words(sentence).collect();
    let sum: usize = words.iter().filter_map(|word| counts.get(word)).sum();
    sum as f64 / (words.len() as f64 + 3.0).powf(0.7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_can_be_searched() {
        assert!(STOP_WORDS.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn sentences_end_where_they_end() {
        let text = "J. Smith spoke, e.g. of rain. \"Really?\" Yes!\nNo end here\n\nA heading";
        let wanted =
            ["J. Smith spoke, e.g. of rain.", "\"Really?\"", "Yes!", "No end here", "A heading"];
        assert_eq!(sentences(text), wanted);
        assert!(sentences(" \n\n ").is_empty());
    }

    #[test]
    fn key_terms_are_frequent_words_that_mean_something() {
        let terms = key_terms(["The cluster is the cluster.", "A leader leads the cluster"], 2);
        assert_eq!(terms, [("cluster".to_owned(), 3), ("leader".to_owned(), 1)]);
    }

    #[test]
    fn summaries_are_sentences_of_the_text_in_its_order() {
        let text = "Hello and welcome. Battery prices fell again. Falling battery prices move \
                    factories. Somebody coughed. Factories need cheap battery cells. Goodbye.";
        let summary = summarize(text, 3);
        assert_eq!(
            summary,
            [
                "Battery prices fell again.",
                "Falling battery prices move factories.",
                "Factories need cheap battery cells.",
            ]
        );
        assert_eq!(summarize("Same. Same. Same.", 3), ["Same."]);
        assert!(summarize("", 3).is_empty());
    }
}
