//! The form that is written to files.

use std::fs;

use super::*;

#[test]
fn lines_survive_their_text() {
    let history = History::new();
    let (first, second) = (id(1, 0), id(1, 1));
    history.begun(first);
    history.sent(first, Sent::Stored(place(first)));
    history.begun(second);
    history.sent(second, Sent::Unknown);
    history.received(first, place(first));
    history.fault("kill", Some("first"));
    history.fault("broker", None);
    history.mended("broker");
    history.note(Event::Member {
        state: Member::Left,
        figures: [("handlers_cut_off".to_owned(), 0)].into(),
    });
    let queue = "t:a:1".to_owned();
    history.note(Event::Assigned { queue: queue.clone() });
    history.note(Event::Committed {
        queue: queue.clone(),
        offset: 7,
    });
    history.note(Event::Revoked { queue });
    history.note(Event::Lag { messages: 2 });
    let path = std::env::temp_dir().join(format!("history-{}.jsonl", std::process::id()));
    history.save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let lines = Line::read_all(text.as_bytes()).unwrap();
    assert_eq!(lines, history.collect(|line| Some(line.clone())));
    assert_eq!(check(&lines), history.check());
    assert!(
        text.contains(r#""op":"recv","id":"1/0""#) && text.contains(r#""status":"unknown""#),
        "{text}"
    );
}

#[test]
fn a_line_that_was_cut_off_at_the_end_is_passed_over_and_any_other_is_an_error() {
    let whole = r#"{"ts":1,"proc":"a","op":"lag","messages":0}"#;
    let read = |text: &str| Line::read_all(text.as_bytes());
    assert_eq!(read(&format!("{whole}\n\n{whole}\n")).unwrap().len(), 2);
    assert_eq!(read(&format!("{whole}\n{}", &whole[..20])).unwrap().len(), 1);
    assert_eq!(read(whole).unwrap().len(), 1);
    for broken in [
        &whole[..20],
        "nonsense",
        r#"{"ts":1,"proc":"a","op":"unheard-of"}"#,
    ] {
        let error = read(&format!("{whole}\n{broken}\n{whole}\n")).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
