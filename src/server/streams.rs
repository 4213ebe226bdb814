//! The tasks of HTTP/2 streams.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::Sleep;

use crate::proxy::polled_own_answer;

/// Runs each stream on its own task, and resets it if the client does not read a response of the sidecar itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamExecutor {
    pub(super) answer: Duration,
}

/// The future is boxed, because a task with a large future is copied as a whole when it is spawned and when it ends.
struct StreamTask<F> {
    future: Pin<Box<F>>,
    answer: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(StreamTask {
            future: Box::pin(future),
            answer: self.answer,
            deadline: None,
        });
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (polled, own_answer) = polled_own_answer(|| this.future.as_mut().poll(cx));
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if own_answer && this.deadline.is_none() {
            this.deadline = Some(Box::pin(tokio::time::sleep(this.answer)));
        }
        match &mut this.deadline {
            // h2 resets a stream when its handles are dropped.
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
