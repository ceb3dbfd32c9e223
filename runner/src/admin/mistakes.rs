//! What is wrong with a request, in no more words than an answer may have.

use std::fmt::{self, Display, Write as _};

use super::error::AdminError;

/// The most mistakes that are told one by one: an answer must not grow with a hostile request.
const MOST: usize = 100;
/// The most bytes of a mistake, whatever it quotes.
const MOST_BYTES: usize = 512;
/// The most characters of a name that is quoted.
const MOST_OF_NAME: usize = 64;

/// Everything that is wrong, the first hundred mistakes in words and the others by their number.
///
/// A mistake says where it is and what is expected there. It never quotes a value, which may be a
/// secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes {
    told: Vec<String>,
    untold: usize,
}

impl Mistakes {
    /// One mistake.
    pub fn one(mistake: impl Display) -> Self {
        let mut mistakes = Self::default();
        mistakes.add(mistake);
        mistakes
    }

    /// One more mistake.
    pub fn add(&mut self, mistake: impl Display) {
        if self.told.len() == MOST {
            self.untold += 1;
            return;
        }
        let mut bounded = Bounded(String::new());
        // It fails where there is no more room, and then the rest isn't written at all.
        let _ = write!(bounded, "{mistake}");
        self.told.push(bounded.0);
    }

    /// Fails where there is any. `what` is what isn't valid then, with its verb.
    pub fn ensure_none(self, what: &'static str) -> Result<(), AdminError> {
        if self.told.is_empty() {
            Ok(())
        } else {
            Err(AdminError::invalid(what, self))
        }
    }

    /// The mistakes, and how many more there are.
    pub fn texts(&self) -> Vec<String> {
        let more = (self.untold > 0).then(|| format!("and {} more", self.untold));
        self.told.iter().cloned().chain(more).collect()
    }
}

impl<M: Display> Extend<M> for Mistakes {
    fn extend<I: IntoIterator<Item = M>>(&mut self, mistakes: I) {
        mistakes.into_iter().for_each(|mistake| self.add(mistake));
    }
}

/// A name that somebody else chose, as it is quoted: on one line, and cut where it is too long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a>(pub(super) &'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        match name.char_indices().nth(MOST_OF_NAME) {
            Some((end, _)) => write!(f, "{}…", name.get(..end).unwrap_or_default().escape_debug()),
            None => write!(f, "{}", name.escape_debug()),
        }
    }
}

/// Text that takes no more than fits, and says so.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.0.len() + letter.len_utf8() > MOST_BYTES {
                self.0.push('…');
                return Err(fmt::Error);
            }
            self.0.push(letter);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_are_told_and_the_others_counted() {
        let mut mistakes = Mistakes::default();
        mistakes.extend(0..MOST);
        assert_eq!(mistakes.texts().len(), MOST);
        mistakes.extend(0..2);
        let texts = mistakes.texts();
        assert_eq!(texts.len(), MOST + 1);
        assert_eq!(texts.last().map(String::as_str), Some("and 2 more"));
    }

    #[test]
    fn a_mistake_has_an_end_whatever_it_quotes() {
        let fits = "ä".repeat(MOST_BYTES / 2);
        assert_eq!(Mistakes::one(&fits).texts().concat(), fits);
        let cut = Mistakes::one(fits.clone() + "b").texts();
        assert_eq!(cut, [fits + "…"]);
    }

    #[test]
    fn a_name_is_quoted_on_one_line_and_cut_where_it_is_long() {
        assert_eq!(Name("a\nb").to_string(), "a\\nb");
        let fits = "ä".repeat(MOST_OF_NAME);
        assert_eq!(Name(&fits).to_string(), fits);
        assert_eq!(Name(&(fits.clone() + "b")).to_string(), fits + "…");
    }
}
