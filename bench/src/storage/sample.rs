//! What is stored: objects as extensions keep them, and keys in no order.

/// A JSON object of about 300 bytes, a little different for every number.
pub(crate) fn value(number: u32) -> String {
    format!(
        concat!(
            r#"{{"id":"wo-{number:08}","status":"open","title":"Replace the filter of pump {number}","#,
            r#""assignee":{{"id":"u-{user:04}","name":"Noor de Vries"}},"labels":["maintenance","quarterly"],"#,
            r#""priority":{priority},"dueAt":"2026-03-01T08:00:00.000Z","estimate":{{"hours":2.5,"cost":180.25}},"#,
            r#""description":"Both valves closed.\nBring seals."}}"#
        ),
        number = number,
        user = number % 5_000,
        priority = number % 5,
    )
}

/// The key of a record.
pub(crate) fn key(number: u32) -> String {
    format!("item-{number:08}")
}

/// Numbers in no order, the same in every run (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // The upper half, scaled down: always below the limit.
        let upper = (mixed ^ (mixed >> 31)) >> 32;
        u32::try_from((upper * u64::from(limit)) >> 32).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_an_object_of_about_300_bytes() {
        for number in [0, 9_999, 1_000_000] {
            let value = value(number);
            assert!((290..=310).contains(&value.len()), "{}", value.len());
            let parsed: serde_json::Value = serde_json::from_str(&value).unwrap();
            assert!(parsed.is_object());
        }
    }

    #[test]
    fn numbers_are_the_same_again_and_reach_every_value() {
        let draw = || {
            let mut numbers = Numbers::seeded(7);
            (0..100).map(|_| numbers.below(5)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        for wanted in 0..5 {
            assert!(draw().contains(&wanted));
        }
    }
}
