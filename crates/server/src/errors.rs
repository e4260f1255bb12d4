//! Errors as one line.

use std::error::Error;
use std::fmt;

/// Writes an error with everything that caused it.
#[derive(Debug)]
pub struct Chain<'e>(pub &'e (dyn Error + 'e));

/// The innermost cause of an error, which is the one that tells something about a connection.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
