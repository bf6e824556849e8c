use super::*;

fn place() -> Place {
    Place {
        group: "g".into(),
        topic: "t".into(),
        queue_id: 3,
    }
}

fn hand_out(orders: &Orders, attempt: Option<&str>, pop_time: i64, offsets: &[i64]) -> String {
    let mut told = String::new();
    let handed = HandedOut {
        attempt_id: attempt,
        pop_time,
        invisible: 100,
        offsets,
    };
    orders.hand_out(&place(), handed, "0", &mut told);
    told
}

#[test]
fn a_queue_waits_until_its_batch_is_acknowledged_or_visible_again() {
    let orders = Orders::default();
    assert!(!orders.is_blocked(&place(), None, 100, 0));
    assert_eq!(hand_out(&orders, None, 1000, &[5, 6, 7]), "0 3 0");
    assert!(orders.is_blocked(&place(), None, 100, 1099));
    assert!(!orders.is_blocked(&place(), None, 100, 1100));
    assert_eq!(orders.acknowledge(&place(), 6, 1000), Committed::At(5));
    assert_eq!(orders.acknowledge(&place(), 5, 1000), Committed::At(7));
    assert!(orders.is_blocked(&place(), None, 100, 1000));
    assert_eq!(orders.acknowledge(&place(), 7, 1000), Committed::At(8));
    assert!(!orders.is_blocked(&place(), None, 100, 1000));
}

#[test]
fn an_acknowledgement_that_does_not_fit_is_told_apart() {
    let orders = Orders::default();
    assert_eq!(orders.acknowledge(&place(), 4, 1), Committed::At(5));
    hand_out(&orders, None, 1000, &[5]);
    assert_eq!(orders.acknowledge(&place(), 5, 999), Committed::Late);
    assert_eq!(orders.acknowledge(&place(), 6, 1000), Committed::Unknown);
}

#[test]
fn the_same_try_gets_the_same_batch_and_counts_nothing() {
    let orders = Orders::default();
    hand_out(&orders, Some("a"), 1000, &[5, 6]);
    assert!(!orders.is_blocked(&place(), Some("a"), 100, 1001));
    assert!(orders.is_blocked(&place(), Some("b"), 100, 1001));
    assert!(orders.is_blocked(&place(), None, 100, 1001));
    assert_eq!(hand_out(&orders, Some("a"), 1001, &[5, 6]), "0 3 0");
    assert_eq!(
        hand_out(&orders, Some("b"), 1200, &[5, 6]),
        "0 qo3%5 1;0 qo3%6 1;0 3 1"
    );
    assert_eq!(
        hand_out(&orders, Some("b"), 1300, &[5, 6]),
        "0 qo3%5 1;0 qo3%6 1;0 3 1"
    );
    assert_eq!(hand_out(&orders, Some("c"), 1400, &[6, 7]), "0 qo3%6 2;0 3 0");
}

#[test]
fn counts_are_listed_as_a_java_hash_map_walks_its_keys() {
    // Executed with `java.util.HashMap<Long, Integer>`: 14 to 17 land in buckets 14, 15, 0 and 1 of 16.
    let counts = [14, 15, 16, 17].map(|offset| (offset, 1)).into();
    assert_eq!(in_javas_order(&counts), [16, 17, 14, 15]);
    // Thirteen keys make it grow to 32 buckets.
    let counts = (28..41).map(|offset| (offset, 1)).collect();
    assert_eq!(
        in_javas_order(&counts),
        [32, 33, 34, 35, 36, 37, 38, 39, 40, 28, 29, 30, 31]
    );
    // The upper bits are folded in: 65536 is in bucket 1, and so is 4294967296.
    let counts = [65536, 4_294_967_296, 2].map(|offset| (offset, 1)).into();
    assert_eq!(in_javas_order(&counts), [65536, 4_294_967_296, 2]);
}

#[test]
fn a_message_can_be_hidden_for_longer_or_shorter() {
    let orders = Orders::default();
    hand_out(&orders, None, 1000, &[5, 6]);
    orders.set_visible_at(&place(), 5, 1000, 1010);
    assert!(orders.is_blocked(&place(), None, 100, 1050));
    orders.set_visible_at(&place(), 6, 1000, 1020);
    assert!(!orders.is_blocked(&place(), None, 100, 1020));
    orders.set_visible_at(&place(), 6, 999, 9999);
    orders.set_visible_at(&place(), 7, 1000, 9999);
    assert!(!orders.is_blocked(&place(), None, 100, 1020));
}

#[test]
fn a_timer_is_wanted_once_for_each_time_and_again_for_an_earlier_one() {
    let orders = Orders::default();
    assert_eq!(orders.arm(&place(), 0), None);
    hand_out(&orders, None, 1000, &[5]);
    assert_eq!(orders.arm(&place(), 1000), Some(1100));
    assert_eq!(orders.arm(&place(), 1000), None);
    orders.set_visible_at(&place(), 5, 1000, 1200);
    assert_eq!(orders.arm(&place(), 1000), None, "the first timer looks again");
    assert_eq!(orders.arm(&place(), 1100), Some(1200));
    orders.set_visible_at(&place(), 5, 1000, 1150);
    assert_eq!(orders.arm(&place(), 1100), Some(1150));
    assert_eq!(orders.arm(&place(), 1150), None);
    assert_eq!(orders.disarm_all(), [place()]);
    assert_eq!(orders.arm(&place(), 1100), Some(1150));
}

#[test]
fn what_is_cleared_or_deleted_waits_no_more() {
    let orders = Orders::default();
    for clear in [
        &|orders: &Orders| orders.clear(&place()) as _,
        &|orders: &Orders| orders.remove_group("g"),
        &|orders: &Orders| orders.remove_topic("t"),
    ] as [&dyn Fn(&Orders); 3]
    {
        hand_out(&orders, None, 1000, &[5]);
        assert_eq!(orders.disarm_all(), [place()]);
        assert!(orders.is_blocked(&place(), None, 100, 1000));
        clear(&orders);
        assert!(!orders.is_blocked(&place(), None, 100, 1000));
        assert!(orders.disarm_all().is_empty());
    }
}
