//! Figures of a benchmark: a table for people, JSON lines for tools.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The median of some samples with their spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the samples are below.
    pub median: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
}

impl Spread {
    /// Sorts the samples and takes the middle.
    ///
    /// # Panics
    /// When there is no sample.
    #[must_use]
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<f64> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let median = if samples.len().is_multiple_of(2) {
            f64::midpoint(samples[middle - 1], samples[middle])
        } else {
            samples[middle]
        };
        Self {
            median,
            min: samples[0],
            max: samples[samples.len() - 1],
        }
    }
}

/// The figures of one benchmark.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Spread>)>,
    notes: Vec<String>,
}

impl Report {
    /// A report whose rows have these columns; name the unit in each.
    #[must_use]
    pub fn new(name: &'static str, columns: &[&'static str]) -> Self {
        Self {
            name,
            columns: columns.to_vec(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, label: impl Into<String>, figures: impl IntoIterator<Item = Spread>) {
        self.rows.push((label.into(), figures.into_iter().collect()));
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints the table and appends its rows to `bench/<name>.jsonl` in the build directory; nothing without rows.
    ///
    /// # Panics
    /// When the file cannot be written: a benchmark whose figures are lost has not run.
    pub fn finish(self) {
        if self.rows.is_empty() {
            return;
        }
        print!("{}", self.table());
        let path = output_directory().join(format!("{}.jsonl", self.name));
        self.append_to(&path).expect("the figures can be written");
        println!("figures: {}", path.display());
    }

    fn table(&self) -> String {
        let mut text = format!("\n{}: median (min to max)\n", self.name);
        let width = self
            .rows
            .iter()
            .map(|(label, _)| label.len())
            .max()
            .unwrap_or_default();
        let mut columns = String::new();
        for column in &self.columns {
            let _ = write!(columns, "  {column:>32}");
        }
        let _ = writeln!(text, "{:width$}{columns}", "");
        for (label, figures) in &self.rows {
            let _ = write!(text, "{label:width$}");
            for Spread { median, min, max } in figures {
                let figure = format!("{} ({} to {})", short(*median), short(*min), short(*max));
                let _ = write!(text, "  {figure:>32}");
            }
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    fn append_to(&self, path: &Path) -> std::io::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut file = std::fs::File::options().create(true).append(true).open(path)?;
        for (label, figures) in &self.rows {
            let mut line = Map::new();
            line.insert("benchmark".into(), self.name.into());
            line.insert("case".into(), label.as_str().into());
            for (column, Spread { median, min, max }) in self.columns.iter().zip(figures) {
                line.insert(
                    (*column).into(),
                    serde_json::json!({ "median": median, "min": min, "max": max }),
                );
            }
            writeln!(file, "{}", Value::Object(line))?;
        }
        Ok(())
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn output_directory() -> PathBuf {
    // The benchmark lies in <build directory>/<profile>/deps.
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .nth(3)
        .unwrap_or_else(|| Path::new("target"))
        .join("bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            }
        );
        assert_eq!(
            Spread::of([4.0, 1.0]),
            Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            }
        );
    }

    #[test]
    fn rows_are_printed_and_written() {
        let mut report = Report::new("demo", &["ns", "allocations"]);
        report.row("encode", [Spread::of([250.0]), Spread::of([0.0])]);
        assert!(report.table().contains("encode"), "{}", report.table());
        let path = std::env::temp_dir().join(format!("report-{}.jsonl", std::process::id()));
        report.append_to(&path).unwrap();
        let line: Value = serde_json::from_str(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(line["ns"]["median"], 250.0);
        assert_eq!(line["case"], "encode");
    }
}
