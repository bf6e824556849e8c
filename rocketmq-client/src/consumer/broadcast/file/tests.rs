//! What is on the disk, and what comes of what may be there.

use super::*;
use crate::ErrorKind;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let random = uuid::Uuid::new_v4();
        Self(std::env::temp_dir().join(format!("offsets-{name}-{random}")))
    }

    fn path(&self) -> PathBuf {
        self.0.join("10.0.0.1@DEFAULT/billing/offsets.json")
    }

    fn put(&self, suffix: &str, text: &str) {
        let path = with_suffix(&self.path(), suffix);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, suffix: &str) -> Option<String> {
        fs::read_to_string(with_suffix(&self.path(), suffix)).ok()
    }

    fn open(&self) -> Result<(OffsetFile, Table), String> {
        OffsetFile::open(&self.path()).map_err(|refused| match refused {
            Refused::InUse => "in use".to_owned(),
            Refused::Unusable(error) => {
                assert_eq!(error.kind(), ErrorKind::Config);
                error.to_string()
            }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn table(offsets: &[(i32, i64)]) -> Table {
    let entry = |&(queue, offset)| (MessageQueue::new("orders", "broker-a", queue), offset);
    offsets.iter().map(entry).collect()
}

/// As `LocalFileOffsetStore` of 4.9.8 writes it.
const JAVA_4: &str = "{\n\t\"offsetTable\":{{\n\t\t\t\"brokerName\":\"broker-a\",\n\t\t\t\"queueId\":0,\n\t\t\t\
                      \"topic\":\"orders\"\n\t\t}:7,{\n\t\t\t\"brokerName\":\"broker-a\",\n\t\t\t\"queueId\":3,\n\t\t\t\
                      \"topic\":\"orders\"\n\t\t}:9\n\t}\n}";

#[test]
fn a_file_of_java_is_read_and_ours_is_in_its_format() {
    let place = Place::new("java");
    place.put("", JAVA_4);
    let (mut file, offsets) = place.open().unwrap();
    assert_eq!(offsets, table(&[(0, 7), (3, 9)]));
    file.write(&offsets).unwrap();
    assert_eq!(
        place.text("").unwrap(),
        "{\n\t\"offsetTable\":{\n\t\t{\"brokerName\":\"broker-a\",\"queueId\":0,\"topic\":\"orders\"}:7,\
         \n\t\t{\"brokerName\":\"broker-a\",\"queueId\":3,\"topic\":\"orders\"}:9\n\t}\n}\n"
    );
    assert_eq!(place.text(".bak").unwrap(), JAVA_4, "the file before");
    assert_eq!(place.text(".tmp"), None);
    drop(file);
    assert_eq!(place.open().unwrap().1, table(&[(0, 7), (3, 9)]));
}

#[test]
fn keys_that_are_strings_are_read_too() {
    let place = Place::new("strings");
    let key = r#""{\"brokerName\":\"broker-a\",\"queueId\":1,\"topic\":\"orders\"}""#;
    place.put("", &format!("{{\"offsetTable\":{{{key}:5}},\"unknown\":[1]}}"));
    assert_eq!(place.open().unwrap().1, table(&[(1, 5)]));
}

#[test]
fn without_files_there_are_no_offsets() {
    let place = Place::new("fresh");
    let (mut file, offsets) = place.open().unwrap();
    assert_eq!(offsets, Table::new());
    file.write(&table(&[])).unwrap();
    drop(file);
    assert_eq!(place.open().unwrap().1, Table::new(), "an empty table is one");
}

#[test]
fn a_damaged_file_is_replaced_by_the_one_before() {
    let good = text_of(&table(&[(0, 1)]));
    let whole = text_of(&table(&[(0, 2), (1, 2)]));
    let mut damaged = vec![
        String::new(),
        "{}".to_owned(),
        "null".to_owned(),
        "\0\0\0\0".to_owned(),
    ];
    // Cut anywhere, but for the line end.
    damaged.extend((1..whole.len() - 1).map(|end| whole[..end].to_owned()));
    for text in damaged {
        let place = Place::new("damaged");
        place.put("", &text);
        place.put(".bak", &good);
        let (mut file, offsets) = place.open().unwrap();
        assert_eq!(offsets, table(&[(0, 1)]), "{text:?}");
        file.write(&table(&[(0, 3)])).unwrap();
        assert_eq!(place.text(".bak").unwrap(), good, "what is damaged is no backup");
        file.write(&table(&[(0, 4)])).unwrap();
        assert_eq!(place.text(".bak").unwrap(), text_of(&table(&[(0, 3)])));
    }
}

#[test]
fn between_two_renames_the_backup_is_the_file() {
    let place = Place::new("between");
    place.put(".bak", &text_of(&table(&[(0, 1)])));
    place.put(".tmp", &text_of(&table(&[(0, 2)])));
    let (mut file, offsets) = place.open().unwrap();
    assert_eq!(offsets, table(&[(0, 1)]));
    file.write(&table(&[(0, 3)])).unwrap();
    assert_eq!(place.text("").unwrap(), text_of(&table(&[(0, 3)])));
    assert_eq!(place.text(".bak").unwrap(), text_of(&table(&[(0, 1)])));
}

#[test]
fn when_nothing_can_be_read_the_error_names_the_file_and_what_to_do() {
    for (main, backup) in [
        (Some("{"), None),
        (Some("{"), Some("")),
        (Some(""), None),
        (None, Some("{")),
    ] {
        let place = Place::new("corrupt");
        if let Some(main) = main {
            place.put("", main);
        }
        if let Some(backup) = backup {
            place.put(".bak", backup);
        }
        let error = place.open().unwrap_err();
        assert!(
            error.contains("offsets.json") && error.contains("delete"),
            "{error}"
        );
        assert_eq!(place.text("").as_deref(), main, "nothing was touched");
        assert_eq!(place.text(".bak").as_deref(), backup);
    }
}

#[test]
fn one_at_a_time_has_the_file() {
    let place = Place::new("lock");
    let (file, _) = place.open().unwrap();
    assert_eq!(place.open().unwrap_err(), "in use");
    drop(file);
    place.open().unwrap();
}

#[test]
fn a_write_that_fails_leaves_the_old_file() {
    let place = Place::new("fails");
    let (mut file, _) = place.open().unwrap();
    file.write(&table(&[(0, 1)])).unwrap();
    // Nothing can be written under this name, whoever the user is.
    let obstacle = with_suffix(&place.path(), ".tmp");
    fs::create_dir_all(obstacle.join("full")).unwrap();
    for _ in 0..3 {
        file.write(&table(&[(0, 2)])).unwrap_err();
        assert_eq!(place.text("").unwrap(), text_of(&table(&[(0, 1)])));
    }
    fs::remove_dir_all(obstacle).unwrap();
    file.write(&table(&[(0, 2)])).unwrap();
    assert_eq!(place.text("").unwrap(), text_of(&table(&[(0, 2)])));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new("file");
    fs::write(&place.0, "no directory").unwrap();
    let error = place.open().unwrap_err();
    assert!(error.contains("directory cannot be made"), "{error}");
    fs::remove_file(&place.0).unwrap();
}
