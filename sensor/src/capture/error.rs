//! What can be wrong with a capture.

/// Damage or trouble in one input. The text names the input, the offset and the cause.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The input could not be opened or read.
    #[error("{input}: {cause}")]
    Io {
        /// The file's name, or `standard input`.
        input: String,
        /// What the system said.
        cause: std::io::Error,
    },
}
