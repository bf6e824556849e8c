use tokio::time::advance;

use super::*;

const LENGTH: Duration = Duration::from_secs(60);

fn lease(pop_time: i64) -> Lease {
    Lease {
        receipt: Receipt {
            topic: "orders".into(),
            handle: format!("0 {pop_time} 60000 3 0 b 2 0").parse().unwrap(),
        },
        deadline: Instant::now() + LENGTH,
    }
}

fn numbers(due: Vec<(u64, Receipt)>) -> Vec<u64> {
    let mut numbers: Vec<u64> = due.into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_time_is_over_does_not_start() {
    let popping = Popping::new(false);
    popping.add([(0, lease(1)), (1, lease(1))]);
    assert_eq!(popping.start(0), Start::Yes);
    advance(LENGTH).await;
    assert_eq!(popping.start(1), Start::Over);
    assert_eq!(popping.start(1), Start::Gone);
    assert!(popping.take(0).await.unwrap().is_over());
}

#[tokio::test(start_paused = true)]
async fn only_what_a_handler_has_is_renewed_unless_order_is_kept() {
    for (ordered, due) in [(false, vec![0]), (true, vec![0, 1])] {
        let popping = Popping::new(ordered);
        popping.add([(0, lease(1)), (1, lease(1))]);
        assert_eq!(popping.start(0), Start::Yes);
        assert!(popping.due(LENGTH).is_empty(), "too early");
        advance(LENGTH / 2).await;
        assert_eq!(numbers(popping.due(LENGTH)), due);
        assert!(popping.due(LENGTH).is_empty(), "on its way");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_not_renewed() {
    let popping = Popping::new(false);
    popping.add([(0, lease(1))]);
    assert_eq!(popping.start(0), Start::Yes);
    advance(LENGTH).await;
    assert!(popping.due(LENGTH).is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_lease_waits_for_the_handle_that_is_on_its_way() {
    let popping = Arc::new(Popping::new(false));
    popping.add([(0, lease(1))]);
    assert_eq!(popping.start(0), Start::Yes);
    advance(LENGTH / 2).await;
    assert_eq!(numbers(popping.due(LENGTH)), [0]);
    let mut take = pin!(popping.take(0));
    assert!(
        std::future::poll_fn(|context| { std::task::Poll::Ready(take.as_mut().poll(context).is_pending()) })
            .await
    );
    popping.renew(0, Some(lease(2)));
    assert_eq!(take.await.unwrap().receipt.handle.pop_time, 2);
    // The one that failed leaves the old handle.
    popping.add([(1, lease(7))]);
    assert_eq!(popping.start(1), Start::Yes);
    advance(LENGTH / 2).await;
    assert_eq!(numbers(popping.due(LENGTH)), [1]);
    popping.renew(1, None);
    assert_eq!(popping.take(1).await.unwrap().receipt.handle.pop_time, 7);
}

#[tokio::test(start_paused = true)]
async fn what_no_handler_has_is_given_back() {
    let popping = Popping::new(true);
    popping.add([(0, lease(1)), (1, lease(2)), (2, lease(3))]);
    assert_eq!(popping.start(0), Start::Yes);
    let mut given_back: Vec<i64> = popping
        .drain()
        .iter()
        .map(|receipt| receipt.handle.pop_time)
        .collect();
    given_back.sort_unstable();
    assert_eq!(given_back, [2, 3]);
    assert_eq!(popping.start(2), Start::Gone);
    assert!(popping.take(0).await.is_some());
}
