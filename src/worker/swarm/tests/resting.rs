//! Tries that failed, which are told later.

use super::*;

/// All tries were used up within a few polls while what the program needs was down.
#[tokio::test]
async fn a_failed_try_is_told_later_and_later_and_uses_no_slot_meanwhile() {
    let delay = Duration::from_millis(500);
    let mut bench = Bench::start(1, |options| options.retry_delay = delay).await;
    for (attempt, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let start = Instant::now();
        bench.assign(name, attempt, Some("bad"));
        bench.assign("good", attempt, None);
        let mut paths = Vec::new();
        for _ in 0..2 {
            let (path, items) = bench.told().await;
            if path == "assignments/fail" {
                assert_eq!(items[0]["task_id"], name);
                assert!(start.elapsed() >= delay * (1 << (attempt - 1)), "{:?}", start.elapsed());
            }
            paths.push(path);
        }
        let fails_last = paths == ["assignments/complete", "assignments/fail"];
        assert!(fails_last || attempt < 3, "it goes on with others meanwhile");
    }
    // For good, it is told at once, and by a leaving worker as well.
    let start = Instant::now();
    bench.assign("wrong", 9, Some("wrong"));
    assert_eq!(bench.told().await.0, "assignments/fail");
    bench.assign("d", 9, Some("bad"));
    bench.assign("good", 9, None);
    assert_eq!(bench.told().await.0, "assignments/complete");
    bench.stop.cancel();
    assert_eq!(bench.told().await.0, "assignments/fail");
    assert!(start.elapsed() < Duration::from_secs(25));
    bench.stop().await;
}
