//! What is told live, and of the past before it.

use super::*;

#[tokio::test]
async fn who_listens_hears_lines_and_ends_of_that_install_alone() {
    let deployment = Deployment::started();
    let bundle = deployment.pack("com.example.flood", "1.0.0", &guest::log_flood(2));
    let ours = deployment.publish("com.example.flood", &bundle);
    let theirs = deployment.publish("com.example.flood", &bundle);
    assert_ne!(ours.tenant, theirs.tenant);
    let mut of_ours = deployment.listen(&ours, "").await;
    let mut of_theirs = deployment.listen(&theirs, "").await;
    for request in ["req-1", "req-2"] {
        assert_eq!(deployment.call_as(&ours, request).await, 200);
    }
    assert_eq!(deployment.call_as(&theirs, "req-3").await, 200);
    for (listener, requests) in [
        (&mut of_ours, &["req-1", "req-2"][..]),
        (&mut of_theirs, &["req-3"]),
    ] {
        for request in requests {
            let heard = listener.next_of(3).await;
            let id = heard[2].data["invocationId"].clone();
            for line in &heard[..2] {
                let mut data = line.data.clone();
                assert!(data["time"].take().is_string());
                let expected = json!({
                    "time": null, "level": "info", "source": "log", "message": "flood",
                    "invocationId": id, "requestId": request, "version": "1.0.0",
                });
                assert_eq!((line.name.as_str(), data), ("line", expected));
            }
            let mut data = heard[2].data.clone();
            assert!(data["time"].take().is_string());
            assert!(data["durationMs"].take().is_u64());
            assert_eq!(data["memoryBytes"].take(), 65_536);
            assert_eq!(data["hostCalls"].take(), 2);
            let expected = json!({
                "time": null, "durationMs": null, "memoryBytes": null, "hostCalls": null,
                "outcome": "OK", "status": 200, "logLines": 2, "droppedLines": 0,
                "invocationId": id, "requestId": request, "version": "1.0.0",
            });
            assert_eq!((heard[2].name.as_str(), data), ("invocation", expected));
        }
    }
}

#[tokio::test]
async fn a_line_is_heard_while_its_guest_still_runs() {
    let deployment = Deployment::started();
    let looping = deployment.install("com.example.loop", &guest::log_then_loop());
    let mut listener = deployment.listen(&looping, "").await;
    let mut envelope = looping.envelope(&get("/"));
    envelope["limits"] = json!({ "timeout_ms": 60_000 });
    tokio::select! {
        answer = deployment.execute(&envelope) => panic!("answered: {answer:?}"),
        event = listener.next() => assert!(event.unwrap().says(guest::LOOPING)),
    }
    // The caller has hung up.
    let end = listener.next().await.unwrap();
    assert_eq!(end.name, "invocation");
    assert_eq!(end.data["outcome"], "CANCELLED");
    assert_eq!(end.data["memoryBytes"], Value::Null);
    assert_eq!(end.data["logLines"], 1);
}

#[tokio::test]
async fn the_past_is_told_as_far_as_asked_for() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(3));
    for request in ["req-1", "req-2"] {
        deployment.call_as(&flood, request).await;
    }
    for (query, expected) in [
        (
            "follow=false",
            "line line line invocation line line line invocation end",
        ),
        ("follow=false&backlog=2", "line invocation end"),
        ("follow=false&backlog=0", "end"),
        (
            "follow=false&level=info&backlog=5&invocations=false",
            "line line line line line end",
        ),
        ("follow=false&level=warn", "invocation invocation end"),
        ("follow=false&level=error&invocations=false", "end"),
    ] {
        let heard = deployment.listen(&flood, query).await.rest().await;
        let names: Vec<_> = heard.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{query}");
        assert!(heard.last().unwrap().is_end("done"), "{query}");
    }
    for wrong in [
        "level=loud",
        "level=WARN",
        "backlog=357",
        "backlog=-1",
        "follow=perhaps",
        "sheep=1",
        "level=warn&level=info",
    ] {
        let request = deployment.admin(Method::GET, &logs(&flood, wrong));
        let refused = refusal(request.send().await.unwrap()).await;
        assert_eq!(refused, (400, "BAD_REQUEST".to_owned()), "{wrong}");
    }
    let request = deployment.admin(Method::GET, &logs(&flood, ""));
    let request = request.header("last-event-id", "the last one");
    let refused = refusal(request.send().await.unwrap()).await;
    assert_eq!(refused, (400, "BAD_REQUEST".to_owned()));
}

#[tokio::test]
async fn who_comes_back_hears_what_happened_meanwhile_and_nothing_twice() {
    let mut deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(2));
    let mut listener = deployment.listen(&flood, "").await;
    deployment.call_as(&flood, "req-1").await;
    let first = listener.next().await.unwrap();
    drop(listener);
    deployment.call_as(&flood, "req-2").await;
    let heard = deployment
        .listen_after(&flood, &first)
        .await
        .next_of(5)
        .await;
    let heard: Vec<_> = heard
        .iter()
        .map(|event| {
            (
                event.name.as_str(),
                event.data["requestId"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("line", "req-1"),
        ("invocation", "req-1"),
        ("line", "req-2"),
        ("line", "req-2"),
        ("invocation", "req-2"),
    ];
    assert_eq!(heard, expected);

    // Another process remembers nothing, and says so.
    deployment.terminate();
    assert!(deployment.wait());
    deployment.start();
    let mut listener = deployment.listen_after(&flood, &first).await;
    let gap = listener.next().await.unwrap();
    assert_eq!(
        (gap.name.as_str(), &gap.data),
        ("gap", &json!({ "missed": null }))
    );
    deployment.call_as(&flood, "req-3").await;
    assert_eq!(listener.next().await.unwrap().data["requestId"], "req-3");
    let mut listener = deployment.listen_after(&flood, &gap).await;
    assert!(listener.next().await.unwrap().says("flood"));
}

#[tokio::test]
async fn a_reader_who_does_not_read_slows_nobody_down_and_learns_what_is_missing() {
    const LINES: u64 = 256;
    const CALLS: u64 = 120;
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(256));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let address = deployment.url().strip_prefix("http://").unwrap();
    let mut reader = socket.connect(address.parse().unwrap()).await.unwrap();
    // HTTP/1.0, whose answers are not in chunks.
    let head = format!(
        "GET {} HTTP/1.0\r\nhost: runner\r\nauthorization: Bearer {}\r\n\r\n",
        logs(&flood, ""),
        deployment.admin_token()
    );
    reader.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut bytes = vec![0; 64 << 10];
    while !text.contains("\r\n\r\n") {
        let read = reader.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    let mut text = text.split_once("\r\n\r\n").unwrap().1.to_owned();

    for _ in 0..CALLS / 8 {
        let calls = (0..8).map(|_| deployment.call_as(&flood, "req-1"));
        let statuses = timeout(PATIENCE, join_all(calls)).await.unwrap();
        assert_eq!(statuses, [200; 8]);
    }
    let (mut told, mut missed) = (0, 0);
    while told + missed < CALLS * (LINES + 1) {
        let (events, rest) = Event::all(&text);
        for event in events {
            match event.name.as_str() {
                "gap" => missed += event.data["missed"].as_u64().unwrap(),
                _ => told += 1,
            }
        }
        text = rest.to_owned();
        if told + missed < CALLS * (LINES + 1) {
            let read = timeout(PATIENCE, reader.read(&mut bytes)).await;
            let read = read.unwrap_or_else(|_| panic!("{told} told, {missed} missed"));
            text.push_str(std::str::from_utf8(&bytes[..read.unwrap()]).unwrap());
        }
    }
    // Everything is accounted for.
    assert_eq!(told + missed, CALLS * (LINES + 1));
    assert!(missed > 0 && told > 256, "{told} told, {missed} missed");
}

#[tokio::test]
async fn a_tail_ends_when_the_server_stops() {
    let mut deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    let mut listener = deployment.listen(&flood, "").await;
    deployment.call_as(&flood, "req-1").await;
    assert_eq!(listener.next_of(2).await[1].name, "invocation");
    let start = Instant::now();
    deployment.terminate();
    let rest = listener.rest().await;
    assert!(
        matches!(&rest[..], [end] if end.is_end("draining")),
        "{rest:?}"
    );
    assert!(deployment.wait());
    assert!(start.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_tail_ends_with_its_install_and_what_it_did_can_still_be_seen() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    let other = deployment.install("com.example.other", &guest::log_flood(1));
    deployment.call_as(&flood, "req-1").await;
    let mut listener = deployment.listen(&flood, "").await;
    let mut of_other = deployment.listen(&other, "").await;
    assert_eq!(listener.next_of(2).await[1].name, "invocation");
    let uninstall = format!("/v1/installs/{}", flood.install);
    let request = deployment.admin(Method::DELETE, &uninstall);
    assert_eq!(request.send().await.unwrap().status(), 200);
    let rest = listener.rest().await;
    assert!(
        matches!(&rest[..], [end] if end.is_end("uninstalled")),
        "{rest:?}"
    );
    let again = deployment.listen(&flood, "").await.rest().await;
    assert_eq!(again.len(), 3, "{again:?}");
    assert!(again[2].is_end("uninstalled"));
    assert_eq!(deployment.invocations(&flood, "").await.len(), 1);
    // Nobody else noticed.
    deployment.call_as(&other, "req-2").await;
    assert!(of_other.next().await.unwrap().says("flood"));
}

#[tokio::test]
async fn there_are_so_many_tails_of_an_install_and_no_more() {
    let deployment = Deployment::started();
    let flood = deployment.install("com.example.flood", &guest::log_flood(1));
    let other = deployment.install("com.example.other", &guest::log_flood(1));
    let mut listeners = Vec::new();
    for _ in 0..8 {
        listeners.push(deployment.listen(&flood, "").await);
    }
    let request = || deployment.admin(Method::GET, &logs(&flood, ""));
    let refused = request().send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(refusal(refused).await, (429, "TAILS_LIMITED".to_owned()));
    drop(deployment.listen(&other, "").await);
    // Whoever leaves makes room, as soon as the server notices.
    listeners.pop();
    let start = Instant::now();
    while request().send().await.unwrap().status() != 200 {
        assert!(start.elapsed() < PATIENCE);
    }
}
