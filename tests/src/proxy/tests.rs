use std::io::{Read as _, Write as _};

use super::*;

/// A server that counts the requests that reach it, and answers each with its number.
async fn server() -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let handler = move |body: String| async move { format!("{}:{body}", counted.fetch_add(1, Ordering::SeqCst) + 1) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    (url, count)
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let (url, count) = server().await;
    let proxy = Http::before(&url).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |body: &'static str| client.post(format!("{}/a?b=c", proxy.url())).body(body).send().await;
    let reached = || count.load(Ordering::SeqCst);
    assert_eq!(post("x").await.unwrap().text().await.unwrap(), "1:x");

    proxy.next(Method::PUT, Fault::Refused(503));
    assert_eq!(post("other methods pass").await.unwrap().status(), 200);
    for (fault, status, reaches) in [
        (Fault::CutBefore, None, false),
        (Fault::CutAfter, None, true),
        (Fault::Refused(503), Some(503), false),
        (Fault::AnsweredAfter(504), Some(504), true),
        (Fault::Late(Duration::from_millis(30)), Some(200), true),
        (Fault::Slow(Duration::from_millis(30)), Some(200), true),
    ] {
        let (before, met) = (reached(), proxy.met());
        proxy.next(Method::POST, fault);
        let answer = post("y").await;
        assert_eq!(answer.map(|answer| answer.status().as_u16()).ok(), status, "{fault:?}");
        assert_eq!((reached() - before == 1, proxy.met() - met), (reaches, 1), "{fault:?}");
    }
    assert_eq!(post("and on").await.unwrap().status(), 200);
    proxy.every(Fault::Refused(503), Duration::from_secs(60));
    assert_eq!(post("z").await.unwrap().status(), 503);
    proxy.calm();
    assert_eq!(post("z").await.unwrap().status(), 200);
    let head = client.head(proxy.url()).send().await.unwrap();
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 0);
}

#[tokio::test]
async fn what_is_late_takes_effect_though_its_author_is_gone() {
    let (url, count) = server().await;
    let proxy = Http::before(&url).unwrap();
    proxy.next(Method::POST, Fault::Late(Duration::from_millis(300)));
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(50)).build().unwrap();
    assert!(client.post(proxy.url()).body("x").send().await.is_err());
    let arrived = async {
        while count.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), arrived).await.expect("it arrives");
}

#[test]
fn connections_end_and_stall() {
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in echo.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let proxy = Tcp::before(&address, 0).unwrap();
    let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
    let mut heard = [0; 2];
    stream.write_all(b"ab").unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ab");
    let time = Duration::from_millis(200);
    let begun = Instant::now();
    proxy.stall(time);
    stream.write_all(b"cd").unwrap();
    stream.read_exact(&mut heard).unwrap();
    assert!(&heard == b"cd" && begun.elapsed() >= time);
    proxy.cut();
    assert!(matches!(stream.read(&mut heard), Ok(0) | Err(_)), "it has ended");
    std::net::TcpStream::connect(proxy.address()).unwrap().write_all(b"x").unwrap();
}
