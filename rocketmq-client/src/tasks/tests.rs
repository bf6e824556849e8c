use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::*;

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn tasks() -> Tasks {
    Tasks::new(Handle::current())
}

#[tokio::test(start_paused = true)]
async fn stop_waits_for_tasks_of_groups_below_that_finish_in_time() {
    let root = tasks();
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    root.child().child().spawn("worker", |stop| async move {
        stop.cancelled().await;
        time::sleep(Duration::from_secs(1)).await;
        flag.store(true, Ordering::SeqCst);
    });
    assert_eq!(root.stop(Duration::from_secs(5)).await, Ok(()));
    assert!(done.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn stopping_a_group_leaves_the_one_above_alone() {
    let root = tasks();
    let child = root.child();
    let (sender, receiver) = oneshot::channel();
    root.spawn("above", |stop| async move {
        stop.cancelled().await;
        let _ = sender.send(());
    });
    child.spawn("below", |stop| async move { stop.cancelled().await });
    assert_eq!(child.stop(Duration::from_secs(5)).await, Ok(()));
    assert_eq!(root.running(), 1);
    assert_eq!(root.stop(Duration::from_secs(5)).await, Ok(()));
    receiver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_the_stop_is_counted_and_cut_off() {
    let tasks = tasks();
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = SetOnDrop(Arc::clone(&dropped));
    tasks.spawn("deaf", |_stop| async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    });
    assert_eq!(tasks.stop(Duration::from_secs(5)).await, Err(StillRunning(1)));
    assert_eq!(tasks.stop(Duration::from_secs(5)).await, Ok(()));
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_task_and_not_its_neighbour() {
    let tasks = tasks();
    let (sender, receiver) = oneshot::channel();
    tasks.spawn("bad", |_stop| async { panic!("on purpose") });
    tasks.spawn("good", |stop| async move {
        stop.cancelled().await;
        sender.send(()).unwrap();
    });
    assert_eq!(tasks.stop(Duration::from_secs(5)).await, Ok(()));
    receiver.await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_asks_the_tasks_to_stop() {
    let tasks = tasks();
    let (sender, receiver) = oneshot::channel();
    tasks.spawn("waits", |stop| async move {
        stop.cancelled().await;
        sender.send(()).unwrap();
    });
    drop(tasks);
    receiver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn joined_futures_run_side_by_side_and_keep_their_order() {
    let begin = time::Instant::now();
    let outputs = join_all([3, 1, 2].map(|seconds| async move {
        time::sleep(Duration::from_secs(seconds)).await;
        seconds
    }))
    .await;
    assert_eq!(outputs, [3, 1, 2]);
    assert_eq!(begin.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_brief_task_is_awaited_by_the_groups_above_and_may_panic() {
    let root = tasks();
    let child = root.child();
    let (sender, receiver) = oneshot::channel::<()>();
    child.spawn_brief(
        "brief",
        Box::pin(async move {
            receiver.await.unwrap();
            panic!("of the task alone");
        }),
    );
    let (stopped, ()) = tokio::join!(root.stop(Duration::from_secs(5)), async {
        time::sleep(Duration::from_secs(1)).await;
        sender.send(()).unwrap();
    });
    assert_eq!(stopped, Ok(()));
    assert_eq!(child.running(), 0);
}
