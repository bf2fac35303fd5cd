//! The names in a PromQL expression. Whether it is one, promtool says.

/// A metric and what is asked of its labels.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Label, operator, value.
    pub(super) matchers: Vec<(String, String, String)>,
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) selectors: Vec<Selector>,
    /// The labels that it groups and joins by.
    pub(super) grouping: Vec<String>,
}

const GROUPING: [&str; 6] = [
    "by",
    "on",
    "without",
    "ignoring",
    "group_left",
    "group_right",
];
const OPERATORS: [&str; 15] = [
    "and", "or", "unless", "bool", "offset", "sum", "max", "min", "avg", "count", "topk",
    "quantile", "stddev", "bottomk", "group",
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

/// The names in this expression.
pub(super) fn names(expression: &str) -> Names {
    let tokens = tokens(expression);
    let mut names = Names::default();
    let mut rest = tokens.as_slice();
    while let [token, after @ ..] = rest {
        rest = after;
        let Token::Word(word) = token else {
            continue;
        };
        if GROUPING.contains(&word.as_str()) && after.first() == Some(&Token::Sign('(')) {
            let (inside, behind) = inside(after, ')');
            names.grouping.extend(words(inside));
            rest = behind;
        } else if after.first() == Some(&Token::Sign('{')) {
            let (inside, behind) = inside(after, '}');
            names.selectors.push(Selector {
                metric: word.clone(),
                matchers: inside
                    .split(|token| *token == Token::Sign(','))
                    .filter_map(matcher)
                    .collect(),
            });
            rest = behind;
        } else if after.first() != Some(&Token::Sign('(')) && !OPERATORS.contains(&word.as_str()) {
            names.selectors.push(Selector {
                metric: word.clone(),
                matchers: Vec::new(),
            });
        }
    }
    names
}

/// What stands between the bracket that comes first and its end, and what is behind.
fn inside(tokens: &[Token], end: char) -> (&[Token], &[Token]) {
    let end = tokens.iter().position(|token| *token == Token::Sign(end));
    let end = end.expect("a bracket that is closed");
    (&tokens[1..end], &tokens[end + 1..])
}

fn words(tokens: &[Token]) -> impl Iterator<Item = String> {
    tokens.iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.clone()),
        Token::Text(_) | Token::Sign(_) => None,
    })
}

fn matcher(tokens: &[Token]) -> Option<(String, String, String)> {
    match tokens {
        [] => None,
        [Token::Word(label), signs @ .., Token::Text(value)] => {
            let operator = signs.iter().map(|sign| match sign {
                Token::Sign(sign) => *sign,
                other => panic!("an operator: {other:?}"),
            });
            Some((label.clone(), operator.collect(), value.clone()))
        }
        other => panic!("a matcher: {other:?}"),
    }
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut characters = expression.chars().peekable();
    while let Some(first) = characters.next() {
        let mut take_while = |is_part: fn(char) -> bool| {
            let mut taken = String::new();
            while let Some(next) = characters.next_if(|next| is_part(*next)) {
                taken.push(next);
            }
            taken
        };
        match first {
            '"' => {
                let mut text = String::new();
                while let Some(next) = characters.next().filter(|next| *next != '"') {
                    text.push(match next {
                        '\\' => characters.next().expect("an escaped character"),
                        next => next,
                    });
                }
                tokens.push(Token::Text(text));
            }
            // A range: a duration, or a variable of Grafana's.
            '[' => {
                take_while(|next| next != ']');
            }
            '0'..='9' => {
                take_while(|next| next.is_ascii_alphanumeric() || next == '.');
            }
            '$' => {
                take_while(|next| next.is_ascii_alphanumeric() || next == '_');
            }
            first if first.is_ascii_alphabetic() || first == '_' => {
                let rest = take_while(|next| next.is_ascii_alphanumeric() || "_:".contains(next));
                tokens.push(Token::Word(format!("{first}{rest}")));
            }
            first if first.is_whitespace() => {}
            first => tokens.push(Token::Sign(first)),
        }
    }
    tokens
}

#[test]
fn names_are_found_wherever_they_stand() {
    let found = names(
        r#"1 - (sum by (job, le) (rate(a_bucket{op=~"x|y",le="1\\.0"}[5m])) or b) / on (job)
           group_left (v) max(c{}) > 14.4 * 0.001 and kms:d:rate5m offset 1h"#,
    );
    let shown: Vec<(&str, usize)> = found
        .selectors
        .iter()
        .map(|selector| (selector.metric.as_str(), selector.matchers.len()))
        .collect();
    assert_eq!(
        shown,
        [("a_bucket", 2), ("b", 0), ("c", 0), ("kms:d:rate5m", 0)]
    );
    assert_eq!(found.grouping, ["job", "le", "job", "v"]);
    let (label, operator, value) = &found.selectors[0].matchers[1];
    assert_eq!(
        (label.as_str(), operator.as_str(), value.as_str()),
        ("le", "=", r"1\.0")
    );
}
