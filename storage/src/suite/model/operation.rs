//! What the model test does: operations in words that mean something in every state, so that a
//! failing sequence can be shortened and is still a sequence of operations.

use std::ops::Range;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Installs 0 and 1 belong to one tenant, install 2 to another.
pub(super) const INSTALLS: Range<usize> = 0..3;
pub(super) const NAMESPACES: [&str; 2] = ["cache", "notes"];
/// More than a namespace may hold, with prefixes of one another and a sibling that only a pattern
/// would match.
const KEYS: [&str; 6] = ["a", "a%", "a%b", "axb", "b", "é"];
/// A value with its metadata takes 3 to 19 bytes.
const VALUES: [&str; 4] = ["1", "-0", "\"four\"", "[1e100000,2]"];
const METADATA: [&str; 2] = ["{\"m\":1}", "{}"];

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Put {
        at: Place,
        item: Item,
        return_previous: bool,
        return_current: bool,
    },
    BulkPut {
        at: Place,
        items: Vec<Item>,
    },
    Get {
        at: Place,
        key: &'static str,
        revision: Option<Named>,
    },
    GetMany {
        at: Place,
        keys: Vec<&'static str>,
    },
    List {
        at: Place,
        listing: Listing,
    },
    /// The page after the one that was listed last.
    NextPage {
        install: usize,
    },
    Delete {
        at: Place,
        key: &'static str,
        guard: Expectation,
    },
    Usage {
        install: usize,
    },
    Advance(Step),
    /// Gives an install little room or more.
    Allow {
        install: usize,
        room: Room,
    },
}

/// A namespace of an install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) install: usize,
    pub(super) namespace: &'static str,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) key: &'static str,
    pub(super) value: &'static str,
    pub(super) metadata: Option<&'static str>,
    pub(super) ttl_seconds: Option<u64>,
    pub(super) guard: Expectation,
}

/// A guard before it is known which revision it names.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expectation {
    Any,
    Absent,
    Exists,
    Revision(Named),
}

/// A revision by what it is to the key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    /// The greatest it ever had, also after it was removed or expired.
    Latest,
    Former,
    Coming,
}

#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) prefix: Option<&'static str>,
    pub(super) start: Option<&'static str>,
    pub(super) end: Option<&'static str>,
    pub(super) reverse: bool,
    pub(super) limit: Option<u32>,
    pub(super) include_values: bool,
    pub(super) include_metadata: bool,
}

/// How far the clock goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Millis(u64),
    /// To one millisecond before the next record expires.
    BeforeExpiry,
    /// To the instant the next record expires.
    ToExpiry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Little,
    More,
}

pub(super) fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => (place(), item(), any::<bool>(), any::<bool>()).prop_map(
            |(at, item, return_previous, return_current)| Operation::Put { at, item, return_previous, return_current }
        ),
        3 => (place(), items()).prop_map(|(at, items)| Operation::BulkPut { at, items }),
        3 => (place(), key(), option::of(named()))
            .prop_map(|(at, key, revision)| Operation::Get { at, key, revision }),
        1 => (place(), vec(key(), 1..5)).prop_map(|(at, keys)| Operation::GetMany { at, keys }),
        3 => (place(), listing()).prop_map(|(at, listing)| Operation::List { at, listing }),
        2 => INSTALLS.prop_map(|install| Operation::NextPage { install }),
        5 => (place(), key(), delete_guard())
            .prop_map(|(at, key, guard)| Operation::Delete { at, key, guard }),
        2 => INSTALLS.prop_map(|install| Operation::Usage { install }),
        4 => step().prop_map(Operation::Advance),
        1 => (INSTALLS, select(&[Room::Little, Room::More][..]))
            .prop_map(|(install, room)| Operation::Allow { install, room }),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (INSTALLS, select(&NAMESPACES[..]))
        .prop_map(|(install, namespace)| Place { install, namespace })
}

fn key() -> impl Strategy<Value = &'static str> {
    select(&KEYS[..])
}

fn item() -> impl Strategy<Value = Item> {
    key().prop_flat_map(item_of)
}

/// Items with distinct keys, in any order.
fn items() -> impl Strategy<Value = Vec<Item>> {
    subsequence(&KEYS[..], 1..=3)
        .prop_shuffle()
        .prop_flat_map(|keys| keys.into_iter().map(item_of).collect::<Vec<_>>())
}

fn item_of(key: &'static str) -> impl Strategy<Value = Item> {
    let metadata = option::of(select(&METADATA[..]));
    let ttl_seconds = option::of(select(&[60, 61, 90][..]));
    (select(&VALUES[..]), metadata, ttl_seconds, guard()).prop_map(
        move |(value, metadata, ttl_seconds, guard)| Item {
            key,
            value,
            metadata,
            ttl_seconds,
            guard,
        },
    )
}

fn guard() -> impl Strategy<Value = Expectation> {
    prop_oneof![
        5 => Just(Expectation::Any),
        1 => Just(Expectation::Absent),
        1 => Just(Expectation::Exists),
        3 => named().prop_map(Expectation::Revision),
    ]
}

fn delete_guard() -> impl Strategy<Value = Expectation> {
    prop_oneof![
        3 => Just(Expectation::Any),
        1 => Just(Expectation::Exists),
        3 => named().prop_map(Expectation::Revision),
    ]
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![4 => Just(Named::Latest), 1 => Just(Named::Former), 1 => Just(Named::Coming)]
}

fn listing() -> impl Strategy<Value = Listing> {
    let bounds = [option::of(key()), option::of(key()), option::of(key())];
    let limit = prop_oneof![2 => (1..4u32).prop_map(Some), 1 => Just(None)];
    (bounds, any::<[bool; 3]>(), limit).prop_map(|([prefix, start, end], flags, limit)| {
        let [reverse, include_values, include_metadata] = flags;
        Listing {
            prefix,
            start,
            end,
            reverse,
            limit,
            include_values,
            include_metadata,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => select(&[1, 999, 1_000, 30_000][..]).prop_map(Step::Millis),
        1 => Just(Step::BeforeExpiry),
        2 => Just(Step::ToExpiry),
    ]
}
