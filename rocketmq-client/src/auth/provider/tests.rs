use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::advance;

use super::*;
use crate::sync::lock;
use crate::transport::Sign;

/// Gives what it is told, and counts.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<std::result::Result<IssuedCredentials, String>>>,
    calls: AtomicUsize,
    called: tokio::sync::Notify,
}

impl Scripted {
    fn new(
        answers: impl IntoIterator<Item = std::result::Result<IssuedCredentials, &'static str>>,
    ) -> Arc<Self> {
        let mut answers: Vec<_> = answers
            .into_iter()
            .map(|answer| answer.map_err(str::to_owned))
            .collect();
        answers.reverse();
        Arc::new(Self {
            answers: Mutex::new(answers),
            ..Self::default()
        })
    }

    async fn called(&self, times: usize) {
        while self.calls.load(Ordering::SeqCst) < times {
            self.called.notified().await;
        }
    }
}

#[async_trait]
impl CredentialsProvider for Scripted {
    async fn credentials(&self) -> std::result::Result<IssuedCredentials, Box<dyn StdError + Send + Sync>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.called.notify_one();
        let answer = lock(&self.answers).pop();
        match answer {
            Some(answer) => answer.map_err(Into::into),
            None => std::future::pending().await,
        }
    }
}

fn named(name: &str) -> IssuedCredentials {
    IssuedCredentials::new(Credentials::new(name, "12345678"))
}

async fn start(provider: &Arc<Scripted>) -> Rotation {
    Rotation::start(Arc::clone(provider) as Arc<dyn CredentialsProvider>)
        .await
        .unwrap()
}

/// Runs a rotation until the provider was called so often, then once more so that the answer is in use.
async fn run_until_called(rotation: Rotation, provider: &Scripted, times: usize) {
    let stop = CancellationToken::new();
    let drive = async {
        provider.called(times).await;
        tokio::task::yield_now().await;
        stop.cancel();
    };
    tokio::join!(rotation.run(stop.clone()), drive);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_run_out_are_fetched_again_before_they_do() {
    let lives = Duration::from_secs(100);
    let provider = Scripted::new([Ok(named("first").valid_for(lives)), Ok(named("second"))]);
    let rotation = start(&provider).await;
    let signer = Arc::clone(rotation.signer());
    assert_eq!(&*signer.access_key(), "first");
    let began = Instant::now();
    run_until_called(rotation, &provider, 2).await;
    assert_eq!(&*signer.access_key(), "second");
    assert_eq!(began.elapsed().as_secs(), 80);
}

#[tokio::test(start_paused = true)]
async fn when_the_provider_fails_the_old_credentials_stay_and_it_is_asked_again_with_a_pause() {
    let lives = Duration::from_secs(100);
    let answers = [
        Ok(named("first").valid_for(lives)),
        Err("no network"),
        Ok(named("second")),
    ];
    let provider = Scripted::new(answers);
    let rotation = start(&provider).await;
    let signer = Arc::clone(rotation.signer());
    let watched = Arc::clone(&provider);
    let seen = async {
        watched.called(2).await;
        assert_eq!(&*signer.access_key(), "first");
    };
    tokio::join!(seen, run_until_called(rotation, &provider, 3));
    assert_eq!(&*signer.access_key(), "second");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_broker_makes_the_provider_be_asked_but_not_in_a_storm() {
    let provider = Scripted::new([Ok(named("first")), Ok(named("second")), Ok(named("third"))]);
    let rotation = start(&provider).await;
    let signer = Arc::clone(rotation.signer());
    for _ in 0..1000 {
        assert_eq!(&*signer.refused(), "first");
    }
    let began = Instant::now();
    run_until_called(rotation, &provider, 2).await;
    assert!(began.elapsed() >= REFUSED_PACE);
    assert_eq!(&*signer.access_key(), "second");
    assert_eq!(provider.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn replaced_credentials_are_in_use_soon_for_every_client_that_shares_them() {
    let keys = RotatingCredentials::new(Credentials::new("first", "12345678"));
    let mut signers = Vec::new();
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let rotation = Rotation::start(Arc::new(keys.clone())).await.unwrap();
        signers.push(Arc::clone(rotation.signer()));
        running.spawn(rotation.run(stop.clone()));
    }
    for name in ["second", "third"] {
        keys.rotate(Credentials::new(name, "87654321"));
        for signer in &signers {
            while &*signer.access_key() != name {
                advance(Duration::from_millis(100)).await;
            }
        }
    }
    stop.cancel();
    running.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_or_hangs_or_gives_nonsense_at_the_start_is_an_error() {
    let fails = Scripted::new([Err("vault sealed")]);
    let error = Rotation::start(fails).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert_eq!(
        error.to_string(),
        "the credentials provider gave no credentials: vault sealed"
    );
    let hangs = Scripted::new([]);
    let error = Rotation::start(hangs).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.to_string().ends_with("no answer in 10 s"), "{error}");
    let nonsense = Scripted::new([Ok(named(""))]);
    let error = Rotation::start(nonsense).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
}
