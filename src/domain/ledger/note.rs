//! Signed notes and the keys that check them, as text (C2SP signed-note).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The algorithm byte of Ed25519.
const ED25519: u8 = 1;

/// How a line with a signature begins.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// The longest note that is read, in bytes.
const LONGEST_NOTE: usize = 16_384;

/// The most signatures that are read.
const MOST_SIGNATURES: usize = 16;

/// A text with signatures. Nothing says that they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNote {
    /// The text that is signed, its last line feed included.
    pub text: String,
    /// At least one.
    pub signatures: Vec<NoteSignature>,
}

/// One signature of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The name of the key.
    pub name: String,
    /// The id of the key, which is only to find it by.
    pub key_id: u32,
    /// The signature.
    pub signature: Vec<u8>,
}

/// The text is not a signed note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a signed note (C2SP signed-note)")]
pub struct MalformedNote;

impl FromStr for SignedNote {
    type Err = MalformedNote;

    fn from_str(note: &str) -> Result<Self, Self::Err> {
        let is_plain = !note.chars().any(|c| c < ' ' && c != '\n');
        if note.len() > LONGEST_NOTE || !is_plain {
            return Err(MalformedNote);
        }
        // The last blank line: the text may have others.
        let end = note.rfind("\n\n").ok_or(MalformedNote)?;
        let (text, signatures) = (&note[..=end], &note[end + 2..]);
        let lines = signatures.strip_suffix('\n').ok_or(MalformedNote)?;
        let signatures: Vec<_> = lines
            .split('\n')
            .map(|line| NoteSignature::from_line(line).ok_or(MalformedNote))
            .collect::<Result<_, _>>()?;
        if signatures.len() > MOST_SIGNATURES {
            return Err(MalformedNote);
        }
        Ok(Self {
            text: text.to_owned(),
            signatures,
        })
    }
}

impl fmt::Display for SignedNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|one| {
            let mut bytes = one.key_id.to_be_bytes().to_vec();
            bytes.extend_from_slice(&one.signature);
            let encoded = STANDARD.encode(bytes);
            writeln!(f, "{SIGNATURE_MARK}{} {encoded}", one.name)
        })
    }
}

impl NoteSignature {
    fn from_line(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
        let bytes = STANDARD.decode(encoded).ok()?;
        let (key_id, signature) = bytes.split_first_chunk()?;
        if !is_key_name(name) || signature.is_empty() {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            key_id: u32::from_be_bytes(*key_id),
            signature: signature.to_vec(),
        })
    }
}

/// An Ed25519 public key under a name: `name+id+key`, the id in hex and the key in
/// base64 behind its algorithm byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_id: u32,
    public_key: [u8; 32],
}

/// The text is not a verifier key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a verifier key of Ed25519 (name+id+key, C2SP signed-note)")]
pub struct MalformedVerifierKey;

impl VerifierKey {
    /// The key under this name, which is not empty and has no spaces and no `+`.
    pub fn new(name: &str, public_key: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            key_id: key_id(name, &public_key),
            public_key,
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first 4 bytes of SHA-256 over name, line feed, algorithm byte and key.
    pub fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The 32 bytes of the key (RFC 8032 §5.1.5).
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Which of a note's signatures this key has to check. A note with two under
    /// one key is as good as its first.
    pub fn signature_on<'a>(&self, note: &'a SignedNote) -> Option<&'a [u8]> {
        note.signatures
            .iter()
            .find(|one| one.key_id == self.key_id && one.name == self.name)
            .map(|one| one.signature.as_slice())
    }
}

impl FromStr for VerifierKey {
    type Err = MalformedVerifierKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '+');
        let mut part = || parts.next().ok_or(MalformedVerifierKey);
        let (name, id, key) = (part()?, part()?, part()?);
        let key = STANDARD.decode(key).map_err(|_| MalformedVerifierKey)?;
        let key = match key.split_first() {
            Some((&ED25519, key)) => <[u8; 32]>::try_from(key).ok(),
            _ => None,
        };
        let key = key.ok_or(MalformedVerifierKey)?;
        let read = Self::new(name, key);
        if !is_key_name(name) || format!("{:08x}", read.key_id) != id {
            return Err(MalformedVerifierKey);
        }
        Ok(read)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = STANDARD.encode(typed(&self.public_key));
        write!(f, "{}+{:08x}+{encoded}", self.name, self.key_id)
    }
}

fn typed(public_key: &[u8; 32]) -> Vec<u8> {
    [&[ED25519], public_key.as_slice()].concat()
}

fn key_id(name: &str, public_key: &[u8; 32]) -> u32 {
    let named = [name.as_bytes(), b"\n", &typed(public_key)].concat();
    let hash = digest(&SHA256, &named);
    hash.as_ref()
        .first_chunk()
        .map_or(0, |first| u32::from_be_bytes(*first))
}

fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> SignedNote {
        let signature = |name: &str, key_id| NoteSignature {
            name: name.to_owned(),
            key_id,
            signature: vec![7; 64],
        };
        SignedNote {
            text: "a text\n\nof three lines\n".to_owned(),
            signatures: vec![signature("kms", 1), signature("witness.example/x", 2)],
        }
    }

    #[test]
    fn a_note_reads_back() {
        assert_eq!(note().to_string().parse(), Ok(note()));
    }

    #[test]
    fn another_implementation_reads_the_note_alike() {
        let theirs = signed_note::Note::from_bytes(note().to_string().as_bytes()).expect("a note");
        assert_eq!(theirs.text(), note().text.as_bytes());
        assert_eq!(theirs.to_bytes(), note().to_string().into_bytes());
    }

    #[test]
    fn whatever_is_not_exactly_a_note_is_refused() {
        let text = note().to_string();
        for other in [
            String::new(),
            "text\n".to_owned(),
            "text\n\n".to_owned(),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("{text}more\n"),
            text.replace('\u{2014}', "-"),
            text.replace(" kms ", " k+s "),
            text.replace(" kms ", "  "),
            text.replace(" kms ", " k\u{a0}s "),
            text.replace("a text", "a\ttext"),
            text.replace("AAAAAQcHB", "AAAAAQcH!"),
            format!("text\n\n{SIGNATURE_MARK}kms AAAAAQ==\n"),
            format!(
                "text\n\n{}",
                text.lines().last().expect("lines").repeat(9_000)
            ),
            format!(
                "text\n\n{}",
                format!("{}\n", text.lines().last().expect("lines")).repeat(17)
            ),
        ] {
            assert_eq!(other.parse::<SignedNote>(), Err(MalformedNote), "{other:?}");
        }
    }

    #[test]
    fn a_verifier_key_reads_back_and_others_read_it_alike() {
        let seed = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let key = VerifierKey::new("kms", seed.verifying_key().to_bytes());
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key.clone()));
        let theirs = signed_note::StandardVerifier::new(&text).expect("a key to others");
        assert_eq!(signed_note::Verifier::key_id(&theirs), key.key_id());
        assert_eq!(signed_note::Verifier::name(&theirs), "kms");
    }

    #[test]
    fn a_key_with_another_id_name_or_algorithm_is_none() {
        let text = VerifierKey::new("kms", [9; 32]).to_string();
        let parts: Vec<_> = text.split('+').collect();
        let other_algorithm = STANDARD.encode([&[2][..], &[9; 32]].concat());
        for other in [
            String::new(),
            "kms".to_owned(),
            text.replace("kms", "other"),
            text.replace("kms", ""),
            format!("{}+00000000+{}", parts[0], parts[2]),
            format!("{}+{}+{other_algorithm}", parts[0], parts[1]),
            format!("{}+{}+{}", parts[0], parts[1].to_uppercase(), parts[2]),
            format!("{text}+"),
        ] {
            let read = other.parse::<VerifierKey>();
            assert!(read.is_err() || other == text, "{other:?}");
        }
    }

    #[test]
    fn a_signature_is_found_by_name_and_id() {
        let key = VerifierKey::new("kms", [9; 32]);
        let mut note = note();
        assert_eq!(key.signature_on(&note), None);
        note.signatures[1].key_id = key.key_id();
        assert_eq!(key.signature_on(&note), None, "under another name");
        note.signatures[0].key_id = key.key_id();
        assert_eq!(key.signature_on(&note), Some(&[7; 64][..]));
    }
}
