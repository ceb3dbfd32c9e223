use alga_host_api::{LogLine, LogSource};
use alga_model::ManualClock;
use futures_util::FutureExt as _;
use tracing::Level;

use super::*;
use crate::engine::Usage;

const ALL: Filter = Filter {
    level: LineLevel::Trace,
    invocations: true,
};

struct Scene {
    clock: Arc<ManualClock>,
    activity: Activity,
    tenant: TenantId,
}

impl Scene {
    fn new() -> Self {
        Self::with(ActivityLimits::default())
    }

    fn with(limits: ActivityLimits) -> Self {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_millis(1_000)));
        let activity = Activity::new(Arc::clone(&clock) as _, limits);
        Self {
            clock,
            activity,
            tenant: TenantId::generate(),
        }
    }

    fn begin(&self, install: InstallId) -> Recording {
        let subject = Subject {
            invocation: Uuid::now_v7(),
            request_id: "req-1".into(),
            version: "1.0.0".into(),
        };
        self.activity.record(install, subject, Instant::now())
    }

    /// An invocation that writes these lines at `info` and answers.
    fn call(&self, install: InstallId, lines: &[&str]) {
        let recording = self.begin(install);
        for message in lines {
            recording.sink().line(line(Level::INFO, message));
        }
        recording.finish("OK", Some(200), Duration::ZERO);
    }

    fn open(&self, install: InstallId, from: Begin) -> Result<Tail, TailRefused> {
        self.activity.tail(self.tenant, install, ALL, from)
    }

    fn tail(&self, install: InstallId, from: Begin) -> Tail {
        self.open(install, from).unwrap()
    }
}

fn line(level: Level, message: &str) -> LogLine {
    LogLine {
        level,
        source: LogSource::Logging,
        message: message.to_owned(),
    }
}

/// Lines by their message, invocations by their outcome, gaps by their size.
fn said(taken: &[Tailed]) -> Vec<String> {
    let each = taken.iter().map(|it| match it {
        Tailed::Event(_, Event::Line(line)) => line.message.to_string(),
        Tailed::Event(_, Event::Invocation(invocation)) => invocation.outcome.to_owned(),
        Tailed::Gap(_, missed) => format!("gap {missed:?}"),
    });
    each.collect()
}

fn id_of(taken: &Tailed) -> EventId {
    match taken {
        Tailed::Event(id, _) | Tailed::Gap(id, _) => *id,
    }
}

#[test]
fn an_invocation_is_remembered_with_its_lines_and_its_use() {
    let scene = Scene::new();
    let install = InstallId::generate();
    let mut recording = scene.begin(install);
    recording.sink().line(line(Level::WARN, "careful"));
    recording.sink().dropped();
    recording.used(Usage {
        memory_bytes: 65_536,
        host_calls: 3,
    });
    scene.clock.advance(Duration::from_millis(5));
    recording.finish("GUEST_TRAP", None, Duration::ZERO);
    let [invocation] = &scene.activity.invocations(install)[..] else {
        panic!("not one invocation");
    };
    assert_eq!(
        (invocation.outcome, invocation.status, invocation.time),
        ("GUEST_TRAP", None, Timestamp::from_millis(1_005))
    );
    assert_eq!(
        (invocation.memory_bytes, invocation.host_calls),
        (Some(65_536), Some(3))
    );
    assert_eq!((invocation.log_lines, invocation.dropped_lines), (1, 1));
    let id = invocation.subject.invocation;
    let (found, lines) = scene.activity.invocation(install, id).unwrap();
    assert_eq!(found, *invocation);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].time, Timestamp::from_millis(1_000));
    let other = InstallId::generate();
    assert!(scene.activity.invocation(other, id).is_none());
    assert!(scene.activity.invocation(install, Uuid::nil()).is_none());
}

#[test]
fn an_invocation_that_is_dropped_was_given_up() {
    let scene = Scene::new();
    let install = InstallId::generate();
    drop(scene.begin(install));
    let [given_up] = &scene.activity.invocations(install)[..] else {
        panic!("not one invocation");
    };
    assert_eq!(
        (given_up.outcome, given_up.memory_bytes),
        ("CANCELLED", None)
    );
}

#[test]
fn an_invocation_that_a_panic_ends_was_not_given_up() {
    let scene = Scene::new();
    let install = InstallId::generate();
    let recording = scene.begin(install);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _recording = recording;
        panic!("of the host");
    }));
    assert!(panicked.is_err());
    assert_eq!(scene.activity.invocations(install)[0].outcome, "INTERNAL");
}

#[test]
fn a_tail_begins_with_the_last_events_and_goes_on() {
    let scene = Scene::new();
    let install = InstallId::generate();
    scene.call(install, &["1", "2"]);
    let mut tail = scene.tail(install, Begin::Last(2));
    assert!(tail.has_backlog());
    assert_eq!(said(&tail.take()), ["2", "OK"]);
    assert!(!tail.has_backlog());
    assert_eq!(said(&tail.take()), [""; 0]);
    scene.call(install, &["3"]);
    scene.call(InstallId::generate(), &["of somebody else"]);
    assert_eq!(said(&tail.take()), ["3", "OK"]);
    assert_eq!(said(&scene.tail(install, Begin::Last(0)).take()), [""; 0]);
}

#[test]
fn a_tail_hears_what_it_wants() {
    let scene = Scene::new();
    let install = InstallId::generate();
    let filter = Filter {
        level: LineLevel::Warn,
        invocations: false,
    };
    let mut tail = scene
        .activity
        .tail(scene.tenant, install, filter, Begin::Last(0))
        .unwrap();
    let recording = scene.begin(install);
    for level in [Level::ERROR, Level::WARN, Level::INFO, Level::TRACE] {
        recording.sink().line(line(level, level.as_str()));
    }
    recording.finish("OK", Some(200), Duration::ZERO);
    assert_eq!(said(&tail.take()), ["ERROR", "WARN"]);
    let mut tail = scene
        .activity
        .tail(scene.tenant, install, filter, Begin::Last(1))
        .unwrap();
    assert_eq!(said(&tail.take()), ["WARN"]);
}

#[test]
fn a_tail_goes_on_after_the_event_it_is_told() {
    let scene = Scene::new();
    let install = InstallId::generate();
    scene.call(install, &["1", "2", "3"]);
    let all = scene.tail(install, Begin::Last(99)).take();
    for (index, event) in all.iter().enumerate() {
        let text = id_of(event).to_string();
        let mut tail = scene.tail(install, Begin::After(text.parse().unwrap()));
        assert_eq!(tail.take(), all[index + 1..], "{text}");
    }
}

#[test]
fn a_slow_tail_is_told_how_much_it_missed_and_does_not_hear_it_twice() {
    let mut limits = ActivityLimits::default();
    limits.ring.lines = 2;
    let scene = Scene::with(limits);
    let install = InstallId::generate();
    // What was there before is not missed.
    scene.call(install, &["a", "b", "c"]);
    let mut tail = scene.tail(install, Begin::Last(99));
    assert_eq!(said(&tail.take()), ["b", "c", "OK"]);
    scene.call(install, &["1", "2", "3", "4", "5"]);
    let taken = tail.take();
    assert_eq!(said(&taken), ["gap Some(3)", "4", "5", "OK"]);
    let mut again = scene.tail(install, Begin::After(id_of(&taken[0])));
    assert_eq!(said(&again.take()), ["4", "5", "OK"]);
    // Lost at the end, where nothing follows that could tell.
    scene.call(install, &["6"]);
    for slot in scene.activity.0.known().by_id.values() {
        slot.entry.ring().clear();
    }
    assert_eq!(said(&tail.take()), ["gap Some(2)"]);
    assert_eq!(said(&tail.take()), [""; 0]);
}

#[test]
fn what_a_tail_was_to_begin_with_and_lost_is_missed() {
    let mut limits = ActivityLimits::default();
    limits.ring.lines = 2;
    let scene = Scene::with(limits);
    let install = InstallId::generate();
    scene.call(install, &["a", "b", "c"]);
    let begin = || {
        [
            scene.tail(install, Begin::Last(99)),
            scene.tail(install, Begin::Last(2)),
            scene.tail(install, Begin::Last(0)),
            scene.tail(install, Begin::After("0000000000000000-1".parse().unwrap())),
        ]
    };
    let mut tails = begin();
    scene.call(install, &["1", "2", "3"]);
    let new = ["gap Some(1)", "2", "3", "OK"];
    let [all, two, none, elsewhere] = tails.each_mut().map(|tail| said(&tail.take()));
    assert_eq!(all, [&["gap Some(2)", "OK"], &new[..]].concat());
    assert_eq!(two, [&["gap Some(1)", "OK"], &new[..]].concat());
    assert_eq!(none, new);
    assert_eq!(
        elsewhere,
        [&["gap None", "gap Some(2)", "OK"], &new[..]].concat()
    );
    // Lost as a whole, and half-way.
    let mut tails = begin();
    assert_eq!(said(&tails[0].take()).len(), 4);
    scene.call(install, &["4", "5", "6"]);
    for slot in scene.activity.0.known().by_id.values() {
        slot.entry.ring().clear();
    }
    let [all, two, none, _] = tails.each_mut().map(|tail| said(&tail.take()));
    assert_eq!(all, ["gap Some(4)"]);
    assert_eq!(two, ["gap Some(6)"]);
    assert_eq!(none, ["gap Some(4)"]);
}

#[test]
fn who_comes_from_another_process_hears_everything_after_a_gap() {
    let scene = Scene::new();
    let install = InstallId::generate();
    scene.call(install, &["1"]);
    for foreign in [
        "0000000000000000-1".to_owned(),
        "0000000000000000-18446744073709551615".to_owned(),
        {
            // Its own ring's, but an event that there was not.
            let [first, ..] = &scene.tail(install, Begin::Last(1)).take()[..] else {
                panic!("nothing");
            };
            let text = id_of(first).to_string();
            let (ring, _) = text.split_once('-').unwrap();
            format!("{ring}-3")
        },
    ] {
        let from = Begin::After(foreign.parse().unwrap());
        let mut tail = scene.tail(install, from);
        assert!(tail.has_backlog());
        let taken = tail.take();
        assert_eq!(said(&taken), ["gap None", "1", "OK"], "{foreign}");
        let mut again = scene.tail(install, Begin::After(id_of(&taken[0])));
        assert_eq!(said(&again.take()), ["1", "OK"], "{foreign}");
    }
}

#[test]
fn what_is_no_id_is_refused() {
    for text in [
        "",
        "1",
        "-",
        "0000000000000000-",
        "0000000000000000--1",
        "0000000000000000-+1",
        "+000000000000000-1",
        "000000000000000-1",
        "0000000000000000-18446744073709551616",
        "0000000000000000-1\n",
    ] {
        assert!(text.parse::<EventId>().is_err(), "{text:?}");
    }
}

#[test]
fn a_batch_is_bounded_and_nothing_is_lost_between_two() {
    let scene = Scene::new();
    let install = InstallId::generate();
    let mut tail = scene.tail(install, Begin::Last(0));
    let lines: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    scene.call(
        install,
        &lines.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let mut heard = Vec::new();
    loop {
        let taken = tail.take();
        assert!(taken.len() <= 65, "{}", taken.len());
        if taken.is_empty() {
            break;
        }
        heard.extend(said(&taken));
    }
    assert_eq!(heard.len(), 201);
    assert_eq!(heard[..200], lines);
    let long = "x".repeat(20_000);
    scene.call(install, &[&long, &long, &long]);
    assert_eq!(tail.take().len(), 2);
}

#[test]
fn a_tail_that_waits_is_woken_by_what_happens_and_by_the_end() {
    let scene = Scene::new();
    let install = InstallId::generate();
    let mut tail = scene.tail(install, Begin::Last(0));
    assert!(tail.next().now_or_never().is_none());
    {
        let mut waiting = std::pin::pin!(tail.next());
        assert!(waiting.as_mut().now_or_never().is_none());
        scene.call(install, &["1"]);
        let taken = waiting.as_mut().now_or_never().unwrap().unwrap();
        assert_eq!(said(&taken), ["1", "OK"]);
    }
    let mut waiting = std::pin::pin!(tail.next());
    assert!(waiting.as_mut().now_or_never().is_none());
    scene.activity.close();
    assert_eq!(waiting.as_mut().now_or_never(), Some(None));
    let refused = scene.open(install, Begin::Last(0));
    assert_eq!(refused.unwrap_err(), TailRefused::Closed);
}

#[test]
fn there_are_as_many_tails_as_allowed_and_an_end_makes_room() {
    let scene = Scene::with(ActivityLimits {
        tails_per_install: 2,
        tails: 3,
        ..ActivityLimits::default()
    });
    let (one, other) = (InstallId::generate(), InstallId::generate());
    let open = |install| scene.open(install, Begin::Last(0));
    let first = open(one).unwrap();
    let _second = open(one).unwrap();
    assert_eq!(open(one).unwrap_err(), TailRefused::Install);
    let third = open(other).unwrap();
    assert_eq!(open(other).unwrap_err(), TailRefused::Process);
    drop(first);
    let _fourth = open(other).unwrap();
    drop(third);
    assert!(open(one).is_ok());
}

#[test]
fn a_tenant_has_as_many_tails_as_allowed_and_leaves_the_others_to_others() {
    let scene = Scene::with(ActivityLimits {
        tails_per_tenant: 2,
        tails: 3,
        ..ActivityLimits::default()
    });
    let open = |tenant| {
        let install = InstallId::generate();
        scene.activity.tail(tenant, install, ALL, Begin::Last(0))
    };
    let other = TenantId::generate();
    let first = open(scene.tenant).unwrap();
    let _second = open(scene.tenant).unwrap();
    assert_eq!(open(scene.tenant).unwrap_err(), TailRefused::Tenant);
    let theirs = open(other).unwrap();
    assert_eq!(open(other).unwrap_err(), TailRefused::Process);
    drop((first, theirs));
    assert!(open(scene.tenant).is_ok());
    assert!(!scene.activity.0.known().tails_of.contains_key(&other));
}

#[test]
fn what_nobody_calls_any_more_is_forgotten_without_a_call() {
    let scene = Scene::new();
    scene.call(InstallId::generate(), &["line"]);
    let idle = ActivityLimits::default().idle;
    scene
        .clock
        .advance(idle.saturating_sub(Duration::from_millis(1)));
    scene.activity.forget_idle();
    assert!(scene.activity.bytes() > 0);
    scene.clock.advance(Duration::from_millis(1));
    scene.activity.forget_idle();
    assert_eq!(scene.activity.bytes(), 0);
}

#[test]
fn what_was_not_called_for_long_costs_nothing() {
    let scene = Scene::new();
    let installs: Vec<_> = (0..100).map(|_| InstallId::generate()).collect();
    for install in &installs {
        scene.call(*install, &["line"]);
    }
    let tail = scene.tail(installs[0], Begin::Last(0));
    assert!(scene.activity.bytes() > 0);
    let idle = ActivityLimits::default().idle;
    let nearly = idle.checked_sub(Duration::from_millis(1)).unwrap();
    scene.clock.advance(nearly);
    assert_eq!(scene.activity.invocations(installs[99]).len(), 1);
    scene.clock.advance(Duration::from_millis(1));
    assert!(scene.activity.invocations(installs[99]).is_empty());
    // Somebody listens to this one.
    assert_eq!(scene.activity.invocations(installs[0]).len(), 1);
    drop(tail);
    scene.clock.advance(idle);
    assert!(scene.activity.invocations(installs[0]).is_empty());
    assert_eq!(scene.activity.bytes(), 0);
    assert!(scene.activity.0.known().by_use.is_empty());
}

#[test]
fn all_installs_together_stay_within_the_budget_and_the_last_called_ones_remain() {
    let limits = ActivityLimits::default();
    let scene = Scene::with(limits);
    let long = "x".repeat(8 << 10);
    let mut last = InstallId::generate();
    for _ in 0..1_000 {
        last = InstallId::generate();
        scene.call(last, &[&*long; 10]);
        assert!(scene.activity.bytes() <= limits.bytes);
    }
    assert_eq!(scene.activity.invocations(last).len(), 1);
    assert!(scene.activity.0.known().by_id.len() > 100);
    // Ten thousand that were called once have 2 KiB each at the most.
    for _ in 0..10_000 {
        scene.call(InstallId::generate(), &["a line", "and one more"]);
    }
    assert!(scene.activity.bytes() <= 10_000 * 2_048);
    assert!(scene.activity.0.known().by_id.len() >= 10_000);
}

#[test]
fn what_runs_or_is_listened_to_loses_lines_before_the_budget_breaks() {
    let scene = Scene::with(ActivityLimits {
        bytes: 100 << 10,
        ..ActivityLimits::default()
    });
    let installs: Vec<_> = (0..4).map(|_| InstallId::generate()).collect();
    let mut tails: Vec<_> = installs
        .iter()
        .map(|install| scene.tail(*install, Begin::Last(0)))
        .collect();
    let long = "x".repeat(8 << 10);
    for install in &installs {
        scene.call(*install, &[&*long; 8]);
        assert!(
            scene.activity.bytes() <= 100 << 10,
            "{}",
            scene.activity.bytes()
        );
    }
    assert_eq!(said(&tails[0].take()), ["gap Some(9)"]);
    // Told or heard, nothing is passed over in silence.
    for tail in &mut tails[1..] {
        let mut accounted = 0;
        loop {
            let taken = tail.take();
            if taken.is_empty() {
                break;
            }
            for it in &taken {
                accounted += match it {
                    Tailed::Event(..) => 1,
                    Tailed::Gap(_, missed) => missed.unwrap(),
                };
            }
        }
        assert_eq!(accounted, 9);
    }
}

#[test]
fn many_threads_leave_the_books_right() {
    let limits = ActivityLimits {
        bytes: 256 << 10,
        ..ActivityLimits::default()
    };
    let scene = Scene::with(limits);
    let installs: Vec<_> = (0..16).map(|_| InstallId::generate()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (scene, installs) = (&scene, &installs);
            scope.spawn(move || {
                for round in 0..500 {
                    let install = installs[(round * 7 + thread) % installs.len()];
                    let mut tail = scene.open(install, Begin::Last(3)).ok();
                    scene.call(install, &["x".repeat(round * 8).as_str(); 3]);
                    drop(tail.as_mut().map(Tail::take));
                }
            });
        }
    });
    let mut known = scene.activity.0.known();
    let held: usize = known
        .by_id
        .values()
        .map(|slot| ENTRY_BYTES + slot.entry.ring().bytes())
        .sum();
    assert_eq!(held, scene.activity.bytes());
    assert!(held <= limits.bytes);
    assert_eq!((known.tails, known.by_use.len()), (0, known.by_id.len()));
    known.by_id.clear();
}
