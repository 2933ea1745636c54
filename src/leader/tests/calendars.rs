//! The calendar: tables of expressions, days on which clocks are changed, and properties against
//! a second reading that walks over every local minute.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use crate::leader::{Calendar, CalendarError};
use crate::model::{Cadence, TimeMs};

fn cron(expression: &str, zone: &str) -> Cadence {
    Cadence::Cron { expression: expression.to_owned(), zone: zone.to_owned() }
}

fn zone_of(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

/// `2026-03-29T02:30+01:00` and the like, or without an offset in UTC.
fn ms(text: &str) -> TimeMs {
    let timestamp = text.parse::<Timestamp>().or_else(|_| format!("{text}Z").parse());
    timestamp.unwrap().as_millisecond().try_into().unwrap()
}

fn local(at: TimeMs, zone: &str) -> String {
    let timestamp = Timestamp::from_millisecond(at.try_into().unwrap()).unwrap();
    timestamp.to_zoned(zone_of(zone)).strftime("%a %Y-%m-%d %H:%M%:z").to_string()
}

/// The first slots after a UTC time, as local times.
fn slots(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let after = ms(after);
    let calendar = Calendar::new(&cron(expression, zone), after).unwrap();
    let slots = calendar.slots_between(after, TimeMs::MAX, count);
    slots.map(|slot| local(slot, zone)).collect()
}

/// The same without day, offset and what does not change.
fn times(expression: &str, zone: &str, after: &str, count: usize) -> String {
    let slots = slots(expression, zone, after, count);
    slots.iter().map(|slot| &slot[15..]).collect::<Vec<_>>().join(" ")
}

#[test]
fn expressions() {
    let after = "2026-11-28T16:20:30"; // a Saturday
    let rows = [
        // The contract's example: minute 0 of every 2nd hour.
        ("0 */2 * * *", "Sat 2026-11-28 18:00", "Sat 2026-11-28 20:00"),
        ("* * * * *", "Sat 2026-11-28 16:21", "Sat 2026-11-28 16:22"),
        ("*/7 * * * *", "Sat 2026-11-28 16:21", "Sat 2026-11-28 16:28"),
        ("5-20/15 * * * *", "Sat 2026-11-28 17:05", "Sat 2026-11-28 17:20"),
        ("10,50 6,18 * * *", "Sat 2026-11-28 18:10", "Sat 2026-11-28 18:50"),
        ("0 9-17/4 * * MON-FRI", "Mon 2026-11-30 09:00", "Mon 2026-11-30 13:00"),
        ("0 0 * * 0", "Sun 2026-11-29 00:00", "Sun 2026-12-06 00:00"),
        ("0 0 * * 7", "Sun 2026-11-29 00:00", "Sun 2026-12-06 00:00"),
        ("0 0 * * sat-sun", "Sun 2026-11-29 00:00", "Sat 2026-12-05 00:00"),
        ("30 4 1,15 jan,jul ?", "Fri 2027-01-01 04:30", "Fri 2027-01-15 04:30"),
        ("0 0 L * *", "Mon 2026-11-30 00:00", "Thu 2026-12-31 00:00"),
        ("0 0 29 2 *", "Tue 2028-02-29 00:00", "Sun 2032-02-29 00:00"),
        ("0 0 l feb *", "Sun 2027-02-28 00:00", "Tue 2028-02-29 00:00"),
        ("0 0 31 * *", "Thu 2026-12-31 00:00", "Sun 2027-01-31 00:00"),
        // Both day fields restricted: either will do.
        ("0 0 13 * FRI", "Fri 2026-12-04 00:00", "Fri 2026-12-11 00:00"),
        ("0 0 1 * FRI", "Tue 2026-12-01 00:00", "Fri 2026-12-04 00:00"),
        // One begins with a star: both must hold.
        ("0 0 */2 * FRI", "Fri 2026-12-11 00:00", "Fri 2026-12-25 00:00"),
        ("0 0 13 * */7", "Sun 2026-12-13 00:00", "Sun 2027-06-13 00:00"),
        ("@hourly", "Sat 2026-11-28 17:00", "Sat 2026-11-28 18:00"),
        ("@daily", "Sun 2026-11-29 00:00", "Mon 2026-11-30 00:00"),
        ("@midnight", "Sun 2026-11-29 00:00", "Mon 2026-11-30 00:00"),
        ("@weekly", "Sun 2026-11-29 00:00", "Sun 2026-12-06 00:00"),
        ("@monthly", "Tue 2026-12-01 00:00", "Fri 2027-01-01 00:00"),
        ("@yearly", "Fri 2027-01-01 00:00", "Sat 2028-01-01 00:00"),
        ("  @Annually ", "Fri 2027-01-01 00:00", "Sat 2028-01-01 00:00"),
    ];
    for (expression, first, second) in rows {
        let found = slots(expression, "UTC", after, 2);
        assert_eq!(found, [format!("{first}+00:00"), format!("{second}+00:00")], "{expression}");
    }
}

#[test]
fn refused_expressions() {
    let rows = [
        ("", "five fields"),
        ("* * * *", "not 4"),
        ("0 * * * * *", "not 6"),
        ("@reboot", "no shortcut"),
        ("60 * * * *", "minute: 60 is not within 0 to 59"),
        ("* 24 * * *", "hour: 24 is not within 0 to 23"),
        ("* * 0 * *", "day of month: 0 is not within 1 to 31"),
        ("* * * 13 *", "month: 13 is not within 1 to 12"),
        ("* * * * 8", "day of week: 8 is not within 0 to 7"),
        ("99999999999999999999 * * * *", "is not within 0 to 59"),
        ("+5 * * * *", "\"+5\" is no number"),
        ("-5 * * * *", "\"-5\" is no number"),
        ("1,,2 * * * *", "\"\" is no number"),
        ("? * * * *", "minute: \"?\" is no number"),
        ("* * * foo *", "month: \"foo\" is no number"),
        ("* * * * 5L", "day of week: \"5L\" is no number"),
        ("* * 15W * *", "day of month: \"15W\" is no number"),
        ("30-10 * * * *", "runs backwards"),
        ("*/0 * * * *", "within 1 to 60"),
        ("*/90 * * * *", "within 1 to 60"),
        ("*/x * * * *", "within 1 to 60"),
        ("* * * * */8", "within 1 to 7"),
        ("5/15 * * * *", "no range"),
        ("0 0 31 2 *", "not due within eight years"),
        ("0 0 31 4,6,9,11 *", "not due within eight years"),
    ];
    for (expression, text) in rows {
        let error = Calendar::new(&cron(expression, "UTC"), 0).unwrap_err().to_string();
        assert!(error.contains(text), "{expression}: {error}");
    }
    let long = vec!["1"; 200].join(",") + " * * * *";
    let error = Calendar::new(&cron(&long, "UTC"), 0).unwrap_err().to_string();
    assert!(error.contains("at most 256 bytes"), "{error}");
}

#[test]
fn zones_are_those_built_in() {
    for name in ["UTC", "Europe/Berlin", "europe/berlin", "Asia/Kathmandu", "America/New_York"] {
        assert!(Calendar::new(&cron("@daily", name), 0).is_ok(), "{name}");
    }
    for name in ["", "Etc/Unknown", "Mars/Olympus", "../etc/passwd", "+01:00", "/etc/localtime"] {
        let refused = Calendar::new(&cron("@daily", name), 0).unwrap_err();
        assert_eq!(refused, CalendarError::Zone, "{name}");
    }
}

#[test]
fn rare_days_are_found_and_nothing_beyond_time() {
    // 2100 is no leap year.
    let expected = ["Wed 2096-02-29 00:00+00:00", "Fri 2104-02-29 00:00+00:00"];
    assert_eq!(slots("0 0 29 2 *", "UTC", "2092-03-01T00:00", 2), expected);
    // Forty years between two leap days on a Sunday.
    let expected = ["Sun 2280-02-29 00:00+00:00", "Sun 2320-02-29 00:00+00:00"];
    assert_eq!(slots("0 0 29 2 */7", "UTC", "2276-03-01T00:00", 2), expected);
    let refused = Calendar::new(&cron("@daily", "UTC"), TimeMs::MAX).unwrap_err();
    assert_eq!(refused, CalendarError::NeverDue);
    let calendar = Calendar::new(&cron("@daily", "Europe/Berlin"), 0).unwrap();
    assert_eq!(calendar.next_after(TimeMs::MAX), None);
    assert_eq!(calendar.next_after(TimeMs::MAX - 1), None);
}

#[test]
fn berlin_changes_its_clocks() {
    let zone = "Europe/Berlin";
    let (spring, autumn) = ("2026-03-28T23:30", "2026-10-24T22:30"); // half past midnight
    // 02:00 to 03:00 does not exist.
    let rows = [
        ("30 2 * * *", "03:00+02:00 02:30+02:00"),
        ("0,20,40 2 * * *", "03:00+02:00 02:00+02:00"),
        ("30 2,14 * * *", "03:00+02:00 14:30+02:00"),
        ("30 2,3 * * *", "03:00+02:00 03:30+02:00"),
        ("0 2,3 * * *", "03:00+02:00 02:00+02:00"),
        ("0 1 * * *", "01:00+01:00 01:00+02:00"),
        ("30 * * * *", "01:30+01:00 03:30+02:00"),
        ("0 */2 * * *", "04:00+02:00 06:00+02:00"),
        ("*/30 2 * * *", "02:00+02:00 02:30+02:00"),
    ];
    for (expression, expected) in rows {
        assert_eq!(times(expression, zone, spring, 2), expected, "{expression}");
    }
    // 02:00 to 03:00 comes twice.
    let rows = [
        ("30 2 * * *", "02:30+02:00 02:30+01:00"),
        ("30 2,14 * * *", "02:30+02:00 14:30+01:00"),
        ("0 3 * * *", "03:00+01:00 03:00+01:00"),
        ("30 * * * *", "01:30+02:00 02:30+02:00 02:30+01:00 03:30+01:00"),
        ("0 */2 * * *", "02:00+02:00 02:00+01:00 04:00+01:00"),
        ("*/40 2 * * *", "02:00+02:00 02:40+02:00 02:00+01:00 02:40+01:00"),
    ];
    for (expression, expected) in rows {
        let count = expected.split(' ').count();
        assert_eq!(times(expression, zone, autumn, count), expected, "{expression}");
    }
    let days = slots("30 2 * * *", zone, autumn, 2);
    assert_eq!(days, ["Sun 2026-10-25 02:30+02:00", "Mon 2026-10-26 02:30+01:00"]);
    // Whoever asks in the middle of the second 02:xx gets no repetition either.
    assert_eq!(slots("30 2 * * *", zone, "2026-10-25T01:10", 1), ["Mon 2026-10-26 02:30+01:00"]);
}

#[test]
fn other_places_change_their_clocks() {
    let rows = [
        ("America/New_York", "2026-03-08T05:30", "30 2 * * *", "03:00-04:00 02:30-04:00"),
        ("America/New_York", "2026-11-01T04:30", "30 1 * * *", "01:30-04:00 01:30-05:00"),
        ("America/New_York", "2026-11-01T04:30", "0 * * * *", "01:00-04:00 01:00-05:00"),
        // Half an hour, 02:00 to 02:30 and back.
        ("Australia/Lord_Howe", "2026-10-03T14:00", "10,20,40 2 * * *", "02:30+11:00 02:40+11:00"),
        ("Australia/Lord_Howe", "2026-10-03T14:00", "15 2 * * *", "02:30+11:00 02:15+11:00"),
        ("Australia/Lord_Howe", "2026-04-04T13:00", "45 1 * * *", "01:45+11:00 01:45+10:30"),
        ("Australia/Lord_Howe", "2026-04-04T14:40", "*/15 * * * *", "01:45+11:00 01:30+10:30"),
        ("Australia/Lord_Howe", "2026-04-04T14:50", "*/15 * * * *", "01:30+10:30 01:45+10:30"),
        // Midnight itself is left out.
        ("Africa/Cairo", "2026-04-23T20:00", "0 0 * * *", "01:00+03:00 00:00+03:00"),
    ];
    for (zone, after, expression, expected) in rows {
        let found = times(expression, zone, after, 2);
        assert_eq!(found, expected, "{expression} in {zone}");
    }
    // A whole day was left out where the date line moved.
    let found = slots("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00", 2);
    assert_eq!(found, ["Sat 2011-12-31 00:00+14:00", "Sun 2012-12-30 12:00+14:00"]);
}

#[test]
fn intervals_count_from_the_moment_they_were_set() {
    let calendar = Calendar::new(&Cadence::Every { interval_ms: 1500 }, 10_007).unwrap();
    for (after, next) in [(0, 11_507), (10_007, 11_507), (11_506, 11_507), (11_507, 13_007)] {
        assert_eq!(calendar.next_after(after), Some(next), "after {after}");
    }
    assert_eq!(calendar.latest_before(11_507), None);
    assert_eq!(calendar.latest_before(11_508), Some(11_507));
    assert_eq!(calendar.next_after(TimeMs::MAX), None);
    for interval_ms in [0, 999, Cadence::INTERVAL_MAX_MS + 1, u64::MAX] {
        let refused = Calendar::new(&Cadence::Every { interval_ms }, 0).unwrap_err();
        assert_eq!(refused, CalendarError::Interval(interval_ms));
        assert!(refused.to_string().contains("between 1000 and 31622400000 milliseconds"));
    }
}

/// How often a calendar is asked is bounded by what is asked for, not by the length of an outage.
#[test]
fn a_long_outage_is_no_work() {
    let since = ms("2025-01-01T00:00");
    let calendar = Calendar::new(&cron("* * * * *", "Europe/Berlin"), since).unwrap();
    let until = ms("2026-11-28T16:20:30");
    assert_eq!(calendar.slots_between(since, until, 3).last(), Some(since + 180_000));
    assert_eq!(calendar.latest_before(until), Some(ms("2026-11-28T16:20")));
    assert_eq!(calendar.latest_before(ms("2026-11-28T16:20")), Some(ms("2026-11-28T16:19")));
    assert_eq!(calendar.slots_between(until, until + 29_999, 9).count(), 0);
    assert_eq!(calendar.slots_between(until, until + 30_000, 9).count(), 1);
    assert_eq!(calendar.slots_between(until, since, 9).count(), 0);
}

/// An expression together with what it means.
#[derive(Debug, Clone)]
struct Meant {
    text: String,
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    weekdays: Option<BTreeSet<i8>>,
    rhythm: bool,
}

impl Meant {
    fn has(&self, local: DateTime) -> bool {
        let weekday = local.date().weekday().to_sunday_zero_offset();
        self.minutes.contains(&local.minute())
            && self.hours.contains(&local.hour())
            && self.weekdays.as_ref().is_none_or(|days| days.contains(&weekday))
    }
}

fn meant() -> impl Strategy<Value = Meant> {
    let field = |end: i8| {
        let listed = prop::collection::btree_set(0..end, 1..5).prop_map(|numbers| {
            let words: Vec<_> = numbers.iter().map(i8::to_string).collect();
            (words.join(","), numbers, false)
        });
        let stepped = (1..end).prop_map(move |step| {
            (format!("*/{step}"), (0..end).step_by(step.unsigned_abs().into()).collect(), true)
        });
        prop_oneof![listed, stepped]
    };
    // The hours in which clocks are changed, more often than others.
    let changed = prop::collection::btree_set(0i8..4, 1..4).prop_map(|numbers| {
        let words: Vec<_> = numbers.iter().map(i8::to_string).collect();
        (words.join(","), numbers, false)
    });
    let hours = prop_oneof![field(24), changed];
    let weekdays = prop::option::of(prop::collection::btree_set(0i8..7, 1..6));
    (field(60), hours, weekdays).prop_map(|(minute, hour, weekdays)| {
        let days = weekdays.as_ref().map_or_else(
            || "*".to_owned(),
            |days| days.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
        );
        let text = format!("{} {} * * {days}", minute.0, hour.0);
        Meant { text, minutes: minute.1, hours: hour.1, weekdays, rhythm: minute.2 || hour.2 }
    })
}

const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
];

/// Days of change in some of the zones, and one of none.
const DAYS: [&str; 8] = [
    "2026-03-29T00:00",
    "2026-10-25T00:00",
    "2026-03-08T00:00",
    "2026-11-01T00:00",
    "2026-04-04T12:00",
    "2026-10-03T12:00",
    "2026-04-23T22:00",
    "2026-07-01T00:00",
];

/// All slots within `from..=until`, read off the local minutes around.
fn read_off(meant: &Meant, zone: &TimeZone, from: TimeMs, until: TimeMs) -> Vec<TimeMs> {
    let utc = |at: TimeMs| Timestamp::from_millisecond(at.try_into().unwrap()).unwrap();
    let first = zone.to_datetime(utc(from)).date().yesterday().unwrap().at(0, 0, 0, 0);
    let last = zone.to_datetime(utc(until)).date().tomorrow().unwrap().at(23, 59, 0, 0);
    let mut slots = BTreeSet::new();
    let minutes = first.series(1.minute()).take_while(|local| *local <= last);
    for minute in minutes.filter(|local| meant.has(*local)) {
        match zone.to_ambiguous_timestamp(minute).offset() {
            AmbiguousOffset::Unambiguous { offset } => {
                slots.insert(offset.to_timestamp(minute).unwrap());
            }
            AmbiguousOffset::Gap { before, .. } if !meant.rhythm => {
                let beyond = before.to_timestamp(minute).unwrap() + 1.second();
                slots.insert(zone.preceding(beyond).next().unwrap().timestamp());
            }
            AmbiguousOffset::Gap { .. } => {}
            AmbiguousOffset::Fold { before, after } => {
                slots.insert(before.to_timestamp(minute).unwrap());
                if meant.rhythm {
                    slots.insert(after.to_timestamp(minute).unwrap());
                }
            }
        }
    }
    let slots = slots.into_iter().map(|slot| slot.as_millisecond().try_into().unwrap());
    slots.filter(|slot| (from..=until).contains(slot)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn slots_are_the_local_minutes_that_are_meant(
        meant in meant(),
        zone in prop::sample::select(&ZONES[..]),
        day in prop::sample::select(&DAYS[..]),
        before_ms in 0u64..86_400_000,
        asked in prop::collection::vec(0u64..3 * 86_400_000, 8),
    ) {
        let since = ms(day) - before_ms;
        let until = since + 3 * 86_400_000;
        let calendar = Calendar::new(&cron(&meant.text, zone), since).unwrap();
        let expected = read_off(&meant, &zone_of(zone), since + 1, until);
        let found: Vec<_> = calendar.slots_between(since, until, 10_000).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
        // Whoever asks between two slots, hits the second forwards and the first backwards.
        for at in asked.into_iter().map(|ms| since + ms) {
            let place = expected.partition_point(|slot| *slot <= at);
            if let Some(next) = expected.get(place) {
                prop_assert_eq!(calendar.next_after(at), Some(*next));
            }
            let latest = place.checked_sub(1).map(|place| expected[place]);
            prop_assert_eq!(calendar.latest_before(at + 1), latest);
        }
        let few: Vec<_> = calendar.slots_between(since, until, 3).collect();
        prop_assert_eq!(&few[..], &expected[..expected.len().min(3)]);
    }

    #[test]
    fn intervals_are_even(
        since in 0u64..4_000_000_000_000,
        interval_ms in Cadence::INTERVAL_MIN_MS..=Cadence::INTERVAL_MAX_MS,
        after in 0u64..8_000_000_000_000,
    ) {
        let calendar = Calendar::new(&Cadence::Every { interval_ms }, since).unwrap();
        let next = calendar.next_after(after).unwrap();
        prop_assert!(next > after && next > since);
        prop_assert_eq!((next - since) % interval_ms, 0);
        prop_assert!(next - interval_ms <= after.max(since));
        let slots: Vec<_> = calendar.slots_between(after, TimeMs::MAX, 5).collect();
        let expected: Vec<_> = (0..5).map(|n| next + n * interval_ms).collect();
        prop_assert_eq!(slots, expected);
        prop_assert_eq!(calendar.latest_before(next + 1), Some(next));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-*/,?@L0-9a-z ]{0,40}", zone in "[A-Za-z/_.]{0,20}") {
        if let Ok(calendar) = Calendar::new(&cron(&text, "UTC"), 0) {
            prop_assert!(calendar.next_after(0).is_some());
        }
        let _ = Calendar::new(&cron("@daily", &zone), 0);
    }
}
