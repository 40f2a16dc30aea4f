//! A log as text, taken apart by its header.

/// The rows of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// Takes `log` apart.
    ///
    /// # Panics
    /// If a line has not as many values as the header has names.
    #[track_caller]
    pub fn parse(log: &str) -> Self {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let mut lines = log.lines();
        let columns = lines.next().map(words).unwrap_or_default();
        let rows: Vec<_> = lines.map(words).collect();
        for row in &rows {
            assert_eq!(row.len(), columns.len(), "{row:?} does not fit {columns:?}");
        }
        Self { columns, rows }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The values of one column; `None` if there is no such column.
    pub fn column(&self, name: &str) -> Option<Vec<&str>> {
        let at = self.columns.iter().position(|column| column == name)?;
        Some(self.rows.iter().filter_map(|row| row.get(at)).map(String::as_str).collect())
    }

    /// The sum of a column of numbers, `-` being none; `None` if there is no such column.
    ///
    /// # Panics
    /// If a value is no number.
    #[track_caller]
    pub fn sum(&self, name: &str) -> Option<u64> {
        let number = |value: &str| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is {value:?}"));
        Some(self.column(name)?.into_iter().filter(|value| *value != "-").map(number).sum())
    }

    /// Each row as a line, in order: all values, without the header.
    pub fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.join(" ")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let rows = Rows::parse("srcaddr packets\n10.0.0.1 2\n10.0.0.2 40\n- -\n");
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.column("srcaddr"), Some(vec!["10.0.0.1", "10.0.0.2", "-"]));
        assert_eq!((rows.sum("packets"), rows.sum("bytes")), (Some(42), None));
        assert_eq!(rows.lines()[1], "10.0.0.2 40");
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_short_row_is_noticed() {
        Rows::parse("srcaddr packets\n10.0.0.1\n");
    }
}
