//! An error in the value of a key.

/// An error in the value of a key.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The value has the wrong type.
    #[error("{key} is {found}, but must be {expected}")]
    Type {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The expected type.
        expected: &'static str,
    },
    /// The number is not in the key's range.
    #[error("{key} is {found}, but must be {range}")]
    Range {
        /// The key.
        key: String,
        /// The value.
        found: String,
        /// The range in words, such as "greater than 0 and less than 1".
        range: String,
    },
    /// With this number of steps, `steps_offset` leads to a time step that the schedule does not have.
    #[error(
        "steps_offset is {offset}, which with {steps} step{} leads to time step {time}, but num_train_timesteps is \
         {train}; use {}a smaller steps_offset",
        if *.steps == 1 { "" } else { "s" },
        if *.steps == 1 { "" } else { "fewer steps or " }
    )]
    StepsOffset {
        /// `steps_offset`.
        offset: usize,
        /// The number of steps.
        steps: usize,
        /// The largest time step.
        time: usize,
        /// `num_train_timesteps`.
        train: usize,
    },
    /// The value is invalid or not supported.
    #[error("{key} = {value} is refused: {reason}")]
    Refused {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Why it is refused.
        reason: String,
    },
    /// The values of the noise schedule are invalid.
    #[error("{0}")]
    Schedule(String),
}

impl SettingsError {
    /// The error for a value that is invalid or not supported, with the reason.
    pub fn refused(key: &str, value: impl ToString, reason: impl ToString) -> Self {
        Self::Refused { key: key.to_owned(), value: value.to_string(), reason: reason.to_string() }
    }

    /// The error for a number that is not in the key's range, which is given in words.
    pub(crate) fn out_of_range(key: &str, found: impl ToString, range: impl ToString) -> Self {
        Self::Range { key: key.to_owned(), found: found.to_string(), range: range.to_string() }
    }

    /// The error for an offset that leads to a time step which the schedule does not have.
    pub(crate) fn steps_offset(offset: usize, steps: usize, time: usize, train: usize) -> Self {
        if offset < train {
            return Self::StepsOffset { offset, steps, time, train };
        }
        Self::out_of_range("steps_offset", offset, format!("less than num_train_timesteps, which is {train}"))
    }
}
