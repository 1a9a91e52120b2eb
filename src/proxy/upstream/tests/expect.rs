//! Clients that send their body only once they are asked for it.

use super::*;

const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn a_client_that_expects_to_be_asked_is_asked_when_the_backend_asks() {
    let (_site, mut client, mut backend, head_there) = meet(EXPECTING).await;
    assert!(head_there.contains("expect: 100-continue\r\n"), "{head_there}");
    let early = tokio::time::timeout(Duration::from_millis(200), client.read_u8()).await;
    assert!(early.is_err(), "nobody has asked yet");
    write(&mut backend, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    write(&mut client, "hi").await;
    assert_eq!(until(&mut backend, "hi").await, "hi");
    write(&mut backend, OK).await;
    until(&mut client, "\r\n\r\nok").await;
}

#[tokio::test]
async fn it_is_asked_all_the_same_where_the_backend_says_nothing() {
    let (_site, mut client, mut backend, _) = meet(EXPECTING).await;
    assert_eq!(head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    write(&mut client, "hi").await;
    assert_eq!(until(&mut backend, "hi").await, "hi");
}

#[tokio::test]
async fn a_body_that_the_backend_refuses_is_never_asked_for() {
    let (_site, mut client, mut backend, _) = meet(EXPECTING).await;
    write(&mut backend, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch").await;
    let answer = until(&mut client, "much").await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(rest(&mut backend).await, "", "a connection with half a request is no use");
}
