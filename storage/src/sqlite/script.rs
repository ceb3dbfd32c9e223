//! Statements that are put together first and run afterwards, in as few round trips as pay.

use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

use super::error::SqliteError;

/// Up to here there is a statement for every number of rows.
const EVERY_NUMBER: usize = 32;
/// Beyond, only for these, of which the last is the most.
const LARGER_NUMBERS: [usize; 2] = [64, 100];

/// Statements that only write, with their parameters.
pub(super) struct Script {
    together: bool,
    statements: Vec<(String, SqliteArguments)>,
    failure: Option<BoxDynError>,
}

impl Script {
    /// A script whose statements run in one round trip, or in one each.
    ///
    /// Together they are one text to the driver, and what is prepared must find its place in the
    /// cache of the connection: only where texts are few does one round trip pay.
    pub(super) const fn new(together: bool) -> Self {
        Self {
            together,
            statements: Vec::new(),
            failure: None,
        }
    }

    /// Adds a statement, whose parameters are bound next.
    pub(super) fn statement(&mut self, text: &str) -> &mut Self {
        match self.statements.last_mut() {
            Some((script, _)) if self.together => {
                script.push(';');
                script.push_str(text);
            }
            _ => self
                .statements
                .push((text.to_owned(), SqliteArguments::default())),
        }
        self
    }

    /// Binds the next parameter.
    pub(super) fn bind<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Some((_, arguments)) = self.statements.last_mut() {
            self.failure = arguments.add(value).err().or(self.failure.take());
        }
        self
    }

    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<(), SqliteError> {
        if let Some(failure) = self.failure {
            return Err(sqlx::Error::Encode(failure).into());
        }
        for (text, arguments) in self.statements {
            sqlx::query_with(AssertSqlSafe(text), arguments)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

/// An `INSERT` of many rows.
pub(super) struct Insert {
    /// Everything before the rows.
    pub(super) into: &'static str,
    /// How many columns a row has.
    pub(super) columns: usize,
    /// How many of them, the first ones, rows may have in common.
    pub(super) common_columns: usize,
    /// Everything after the rows.
    pub(super) on_conflict: &'static str,
}

/// From so many rows on, what they have in common is bound once. Fewer are not worth a statement of
/// their own.
const WORTH_SHARING: usize = 4;

impl Insert {
    /// Inserts rows, each group of them with what its rows have in common.
    ///
    /// Binding is much of the cost of a row. What many rows have in common is bound once, and the
    /// database multiplies it with them; what is left goes together with all columns bound.
    pub(super) fn write<C, R>(
        &self,
        script: &mut Script,
        groups: impl IntoIterator<Item = (C, Vec<R>)>,
        bind_common: impl Fn(&mut Script, &C),
        bind: impl Fn(&mut Script, &R),
    ) {
        let mut scattered = Vec::new();
        for (common, rows) in groups {
            if rows.len() < WORTH_SHARING {
                scattered.push((common, rows));
                continue;
            }
            for some in chunks(&rows) {
                script.statement(&self.with_common(some.len()));
                bind_common(script, &common);
                for row in some {
                    bind(script, row);
                }
            }
        }
        let scattered: Vec<(&C, &R)> = scattered
            .iter()
            .flat_map(|(common, rows)| rows.iter().map(move |row| (common, row)))
            .collect();
        for some in chunks(&scattered) {
            let values = values(self.columns, some.len());
            script.statement(&[self.into, &values, self.on_conflict].concat());
            for (common, row) in some {
                bind_common(script, common);
                bind(script, row);
            }
        }
    }

    fn with_common(&self, rows: usize) -> String {
        let common = values(self.common_columns, 1);
        let own = values(self.columns.saturating_sub(self.common_columns), rows);
        let Self {
            into, on_conflict, ..
        } = self;
        // Without a WHERE, ON would belong to the join.
        format!("{into}SELECT * FROM ({common}) CROSS JOIN ({own}) WHERE true{on_conflict}")
    }
}

/// `VALUES` with a parameter for each column of each row.
fn values(columns: usize, rows: usize) -> String {
    let row = format!("({}?)", "?, ".repeat(columns.saturating_sub(1)));
    let others = format!(", {row}").repeat(rows.saturating_sub(1));
    format!("VALUES {row}{others}")
}

/// The rows of one statement after the other. There are few different numbers of rows, because what
/// is prepared must find its place in the cache of the connection.
fn chunks<R>(mut rows: &[R]) -> impl Iterator<Item = &[R]> {
    std::iter::from_fn(move || {
        let at_once = match rows.len() {
            0 => return None,
            few @ 1..=EVERY_NUMBER => few,
            many => LARGER_NUMBERS
                .into_iter()
                .rfind(|number| *number <= many)
                .unwrap_or(EVERY_NUMBER),
        };
        let (some, others) = rows.split_at(at_once);
        rows = others;
        Some(some)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_statements_write_any_number_of_rows() {
        let sizes = |rows: usize| -> Vec<usize> {
            let rows = vec![(); rows];
            chunks(&rows).map(<[()]>::len).collect()
        };
        assert_eq!(sizes(3), [3]);
        assert_eq!(sizes(20), [20]);
        assert_eq!(sizes(50), [32, 18]);
        assert_eq!(sizes(100), [100]);
        assert_eq!(sizes(205), [100, 100, 5]);
        let distinct: std::collections::BTreeSet<usize> = (1..1_000).flat_map(sizes).collect();
        assert_eq!(distinct.len(), EVERY_NUMBER + LARGER_NUMBERS.len());
    }
}
