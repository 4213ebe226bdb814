use std::time::{Duration, Instant};

use super::*;

const LONGEST: usize = 1_000;

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

/// Waits until no process has this id, or only a zombie of another parent.
fn gone(id: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let is_zombie = status.lines().any(|line| line.starts_with("State:\tZ"));
        let parent = format!("PPid:\t{}", std::process::id());
        if status.is_empty() || (is_zombie && !status.contains(&parent)) {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn the_output_and_status_of_a_child_are_returned() {
    let output = output(&mut shell("cat; echo hello; exit 7"), LONGEST).await;
    let output = output.unwrap();
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(output.status.code(), Some(7));
}

#[tokio::test]
async fn a_missing_program_cannot_be_started() {
    let failed = output(&mut Command::new("/nonexistent/program"), LONGEST).await;
    assert!(matches!(failed, Err(OutputError::Spawn(_))), "{failed:?}");
}

#[tokio::test]
async fn a_child_that_prints_without_end_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("id");
    let script = format!("echo $$ > {}; while :; do echo junk; done", file.display());
    let failed = output(&mut shell(&script), LONGEST).await;
    assert!(
        matches!(failed, Err(OutputError::TooLong(LONGEST))),
        "{failed:?}"
    );
    gone(std::fs::read_to_string(file).unwrap().trim());
}

#[tokio::test]
async fn a_child_that_hangs_is_killed_with_its_own_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids");
    let script = format!(
        "sleep 1000 & echo $$ $! > {0}.new; mv {0}.new {0}; wait",
        file.display()
    );
    let mut command = shell(&script);
    let started = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        output = output(&mut command, LONGEST) => panic!("{output:?}"),
        () = started => {}
    }
    let ids = std::fs::read_to_string(&file).unwrap();
    for id in ids.split_whitespace() {
        gone(id);
    }
}

#[tokio::test]
async fn a_process_left_behind_does_not_delay_the_output() {
    let output = output(&mut shell("sleep 1000 & echo $!"), LONGEST).await;
    let output = output.unwrap();
    assert!(output.status.success());
    gone(String::from_utf8(output.stdout).unwrap().trim());
}

#[tokio::test]
async fn a_child_inherits_no_descriptor() {
    use std::os::fd::AsRawFd;

    let file = tempfile::NamedTempFile::new().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
    let opened = [link(file.as_raw_fd()), link(socket.as_raw_fd())];
    let output = output(&mut shell("ls -l /proc/$$/fd"), 64 * 1024).await;
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(printed.contains(" 0 -> /dev/null\n"), "{printed}");
    for opened in opened {
        let target = opened.to_str().unwrap();
        assert!(!printed.contains(target), "{target}: {printed}");
    }
}

#[tokio::test]
async fn the_status_of_a_child_reaped_elsewhere_is_passed_on() {
    let (mut group, _stdout) = Group::spawn(&mut shell("exit 3")).unwrap();
    let (child, status) = loop {
        if let Some(ended) = waitpid(Some(group.leader), WaitOptions::empty()).unwrap() {
            break ended;
        }
    };
    assert_eq!(group.try_wait(), None);
    ended(child, status);
    assert_eq!(group.try_wait().and_then(|status| status.code()), Some(3));
}
