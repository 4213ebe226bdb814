pub mod hostile;
pub mod tls;
pub mod upstream;
