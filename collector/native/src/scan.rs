//! A reader of JSON text (RFC 8259) that finds where values begin and end, and knows what it cannot vouch for.
//!
//! Every function returns `None` where the text is not JSON *or* is JSON that needs the slower, fuller look of the Python implementation
//! (escapes of surrogates, exponents that may leave the range of a double, keys that are no plain words). It never has to say why.

/// A place in the text. The text must be valid UTF-8: bytes are compared, never decoded.
pub struct Scan<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

/// Longest number that surely is within a double's range, and the largest exponent with it.
const NUMBER_BYTES: usize = 100;
/// Members of one object beyond which repeated keys are looked for elsewhere.
const MANY_KEYS: usize = 64;

impl<'a> Scan<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Scan { text, at: 0 }
    }

    #[inline]
    pub fn peek(&self) -> u8 {
        *self.text.get(self.at).unwrap_or(&0)
    }

    #[inline]
    pub fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The byte `wanted`, after white space.
    #[inline]
    pub fn take(&mut self, wanted: u8) -> Option<()> {
        self.space();
        (self.peek() == wanted).then(|| self.at += 1)
    }

    /// Whether the byte `wanted` is next, after white space; it is taken then.
    #[inline]
    pub fn took(&mut self, wanted: u8) -> bool {
        self.take(wanted).is_some()
    }

    /// A string's content, without its quotes; the second value says whether there is an escape in it.
    #[inline]
    pub fn string(&mut self) -> Option<(&'a [u8], bool)> {
        self.take(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.ordinary();
            match *self.text.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                0..=0x1f => return None,
                _ => self.at += 1, // among the last bytes of the text
            }
        }
        self.at += 1;
        Some((&self.text[start..self.at - 1], escaped))
    }

    /// Goes to the first byte that may not stand for itself in a string, or on to the last seven of the text.
    #[inline]
    fn ordinary(&mut self) {
        while let Some(eight) = self.text.get(self.at..self.at + 8) {
            let special = specials(word(eight));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
    }

    fn escape(&mut self) -> Option<()> {
        match *self.text.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let hex = self.text.get(self.at + 2..self.at + 6)?;
                let surrogate = matches!(hex[0], b'd' | b'D') && !hex[1].is_ascii_digit() || hex[0] | 32 == b'd' && hex[1] >= b'8';
                if surrogate || hex == b"0000" || !hex.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                self.at += 6;
            }
            _ => return None,
        }
        Some(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else if self.digits() == 0 {
            return None;
        }
        if self.peek() == b'.' {
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'-' | b'+') {
                self.at += 1;
            }
            if !matches!(self.digits(), 1 | 2) {
                return None;
            }
        }
        (self.at - start <= NUMBER_BYTES).then(|| ())
    }

    pub fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// Any value, whose keys may be anything. `depth` is how many levels of objects and arrays it may have.
    pub fn skip(&mut self, depth: usize) -> Option<()> {
        self.value(depth, &mut None)
    }

    /// An object whose every key, at any depth, is a plain word that stands once in its object. Returns its text.
    pub fn object(&mut self, depth: usize, keys: &mut Vec<&'a [u8]>) -> Option<&'a [u8]> {
        self.space();
        let start = self.at;
        if self.peek() != b'{' {
            return None;
        }
        keys.clear();
        self.value(depth, &mut Some(keys))?;
        Some(&self.text[start..self.at])
    }

    /// `keys`, where given, holds the keys of all objects that are open, those of the innermost last.
    fn value(&mut self, depth: usize, keys: &mut Option<&mut Vec<&'a [u8]>>) -> Option<()> {
        self.space();
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b'{' => {
                let base = keys.as_ref().map_or(0, |keys| keys.len());
                self.at += 1;
                let depth = depth.checked_sub(1)?;
                if self.took(b'}') {
                    return Some(());
                }
                loop {
                    let (key, escaped) = self.string()?;
                    if let Some(keys) = keys {
                        let seen = &keys[base..];
                        if escaped || !plain(key) || seen.len() == MANY_KEYS || seen.contains(&key) {
                            return None;
                        }
                        keys.push(key);
                    }
                    self.take(b':')?;
                    self.value(depth, keys)?;
                    if self.took(b'}') {
                        break;
                    }
                    self.take(b',')?;
                }
                if let Some(keys) = keys {
                    keys.truncate(base);
                }
                Some(())
            }
            b'[' => {
                self.at += 1;
                let depth = depth.checked_sub(1)?;
                if self.took(b']') {
                    return Some(());
                }
                loop {
                    self.value(depth, keys)?;
                    if self.took(b']') {
                        return Some(());
                    }
                    self.take(b',')?;
                }
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }
}

/// Whether a key is a word of letters, digits, `_` and `-`.
fn plain(key: &[u8]) -> bool {
    !key.is_empty() && key.iter().all(|byte| IN_WORDS[usize::from(*byte)])
}

const IN_WORDS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'_' || byte as u8 == b'-';
        byte += 1;
    }
    table
};

/// Whether every byte is printable ASCII that stands for itself in a JSON string.
pub fn printable(text: &[u8]) -> bool {
    let mut eights = text.chunks_exact(8);
    let all = eights.all(|eight| {
        let word = word(eight);
        specials(word) | (word | word.wrapping_add(EACH)) & HIGH == 0 // 0x7f, too, is above 0x7f with one added
    });
    all && eights.remainder().iter().all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\'))
}

const EACH: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * EACH;

/// Eight bytes as a number, the first of them lowest.
#[inline]
fn word(eight: &[u8]) -> u64 {
    u64::from_le_bytes(eight.try_into().unwrap_or_default())
}

/// The highest bit of each byte that is `"`, `\` or below 0x20. Above the lowest such byte other bits may be set, too (the usual trick: a
/// subtraction borrows from the byte above only where it found something).
#[inline]
fn specials(word: u64) -> u64 {
    let below = |word: u64, limit: u64| word.wrapping_sub(limit * EACH) & !word;
    (below(word, 0x20) | below(word ^ u64::from(b'"') * EACH, 1) | below(word ^ u64::from(b'\\') * EACH, 1)) & HIGH
}
