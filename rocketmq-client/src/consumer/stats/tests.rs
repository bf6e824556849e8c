use tokio::time::advance;

use super::*;

fn meters() -> (Meters, Arc<TopicMeter>) {
    let meters = Meters::new("billing".into());
    let meter = meters.of(&"orders".into());
    (meters, meter)
}

fn call(acknowledged: u64, failed: u64, millis: u64) -> Call {
    Call {
        acknowledged,
        failed,
        took: Duration::from_millis(millis),
        delivery_millis: (acknowledged + failed) * 3,
    }
}

fn rates(meters: &Meters) -> TopicRates {
    meters.rates().pop().unwrap()
}

#[tokio::test(start_paused = true)]
async fn rates_and_means_are_those_of_the_time_that_passed() {
    let (meters, meter) = meters();
    meter.pulled(32, Duration::from_millis(4));
    meter.pulled(8, Duration::from_millis(2));
    for queue_id in 0..20 {
        meter.called(queue_id, call(1, 0, 10));
    }
    meter.called(-1, call(0, 4, 60));
    advance(Duration::from_secs(4)).await;
    let rates = rates(&meters);
    assert_eq!(rates.topic, "orders");
    assert_eq!(rates.received_per_second, 10.0);
    assert_eq!(rates.pull_time, Duration::from_millis(3));
    assert_eq!(rates.acknowledged_per_second, 5.0);
    assert_eq!(rates.failed_per_second, 1.0);
    assert_eq!(rates.handle_time, Duration::from_micros(260_000 / 21));
    assert_eq!(rates.delivery_time, Duration::from_millis(3));
    assert_eq!(rates.failed_last_hour, 4);
    let status = rates.to_status();
    assert_eq!((status.pull_tps, status.pull_rt), (10.0, 3.0));
    assert_eq!((status.consume_ok_tps, status.consume_failed_msgs), (5.0, 4));
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_a_minute_leaves_the_rates_and_after_an_hour_all_of_them() {
    let (meters, meter) = meters();
    meter.pulled(70, Duration::from_millis(1));
    meter.called(0, call(60, 10, 50));
    for _ in 0..6 {
        advance(SAMPLE_INTERVAL).await;
        meters.sample();
    }
    assert_eq!(rates(&meters).acknowledged_per_second, 1.0);
    advance(SAMPLE_INTERVAL).await;
    meters.sample();
    let later = rates(&meters);
    assert_eq!(
        (later.acknowledged_per_second, later.received_per_second),
        (0.0, 0.0)
    );
    assert_eq!(later.pull_time, Duration::ZERO);
    assert_eq!(
        later.handle_time,
        Duration::from_millis(50),
        "that of the last hour"
    );
    assert_eq!(later.failed_last_hour, 10);
    for _ in 0..420 {
        advance(SAMPLE_INTERVAL).await;
        meters.sample();
    }
    let last = rates(&meters);
    assert_eq!((last.failed_last_hour, last.handle_time), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn the_first_moments_are_not_blown_up_to_a_rate() {
    let (meters, meter) = meters();
    meter.called(0, call(7, 0, 1));
    assert_eq!(rates(&meters).acknowledged_per_second, 7.0);
}

#[tokio::test]
async fn a_topic_has_one_meter_for_all_its_queues() {
    let (meters, meter) = meters();
    assert!(Arc::ptr_eq(&meter, &meters.of(&"orders".into())));
    meters.of(&"invoices".into());
    let topics: Vec<_> = meters.rates().into_iter().map(|rates| rates.topic).collect();
    assert_eq!(topics, ["invoices", "orders"]);
}
