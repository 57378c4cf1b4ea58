// What the comparison with the KServe agent needs around the two sidecars: one program, so that it is built once.
//
//	around model LISTEN                  a model server: reads a request, answers 200 bytes
//	around sink LISTEN DELAY             takes the agent's log events, each after DELAY
//	around proxy LISTEN TARGET           passes TCP on; what comes back is late by the delay that /delay?by=100ms sets
//	around load URL BODY RATE SECONDS    open loop: a request each 1/RATE s, whatever the answers; RATE 0 is closed loop
//
// model, sink and proxy say what they counted at http://LISTEN/stats (the proxy at the port above LISTEN's). load prints a
// line of JSON. URL is http://HOST:PORT/PATH or unix:SOCKET:/PATH.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connections of the load: far more than are busy at once at the rates that are measured.
const connections = 32

func main() {
	arguments := append(os.Args[2:], "", "", "", "")
	switch os.Args[1] {
	case "model":
		model(arguments[0])
	case "sink":
		sink(arguments[0], arguments[1])
	case "proxy":
		proxy(arguments[0], arguments[1])
	case "load":
		load(arguments[0], arguments[1], arguments[2], arguments[3])
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func model(listen string) {
	answer := []byte(`{"predictions":[0.9134],"padding":"` + strings.Repeat("x", 163) + `"}`)
	var served atomic.Int64
	http.HandleFunc("/stats", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"served":%d}`, served.Load()) })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		served.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	})
	log.Fatal(http.ListenAndServe(listen, nil))
}

func sink(listen, delay string) {
	wait := must(time.ParseDuration(delay))
	var requests, responses atomic.Int64
	http.HandleFunc("/stats", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"requests":%d,"responses":%d}`, requests.Load(), responses.Load())
	})
	http.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		time.Sleep(wait)
		if strings.HasSuffix(r.Header.Get("Ce-Type"), "response") {
			responses.Add(1)
		} else {
			requests.Add(1)
		}
	})
	log.Fatal(http.ListenAndServe(listen, nil))
}

func proxy(listen, target string) {
	var delay atomic.Int64
	host, port, _ := net.SplitHostPort(listen)
	control := net.JoinHostPort(host, strconv.Itoa(must(strconv.Atoi(port))+1))
	http.HandleFunc("/delay", func(_ http.ResponseWriter, r *http.Request) {
		delay.Store(int64(must(time.ParseDuration(r.URL.Query().Get("by")))))
	})
	go func() { log.Fatal(http.ListenAndServe(control, nil)) }()
	listener := must(net.Listen("tcp", listen))
	for {
		near := must(listener.Accept())
		far, err := net.Dial("tcp", target)
		if err != nil {
			near.Close()
			continue
		}
		go func() { _, _ = io.Copy(far, near); far.Close() }()
		go func() { back(near, far, &delay); near.Close() }()
	}
}

// back passes on each piece when its time has come; reading goes on meanwhile, so that the delay is no bound of the rate.
func back(near io.Writer, far io.Reader, delay *atomic.Int64) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 4096)
	go func() {
		defer close(pieces)
		for {
			buffer := make([]byte, 64<<10)
			n, err := far.Read(buffer)
			if n > 0 {
				pieces <- piece{time.Now().Add(time.Duration(delay.Load())), buffer[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := near.Write(p.bytes); err != nil {
			break
		}
	}
	for range pieces {
	}
}

func load(url, bodyFile, rateText, secondsText string) {
	body := must(os.ReadFile(bodyFile))
	rate := must(strconv.ParseFloat(rateText, 64))
	seconds := must(strconv.ParseFloat(secondsText, 64))
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true}
	if rest, isUnix := strings.CutPrefix(url, "unix:"); isUnix {
		socket, path, _ := strings.Cut(rest, ":")
		url = "http://sidecar" + path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: transport}
	var ok, bad atomic.Int64
	post := func() {
		answer, err := client.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			bad.Add(1)
			return
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode/100 == 2 {
			ok.Add(1)
		} else {
			bad.Add(1)
		}
	}
	start := time.Now()
	end := start.Add(time.Duration(seconds * float64(time.Second)))
	// Room for every request of the run, so that the clock is never held up.
	due := make(chan time.Time, int(rate*seconds)+1)
	var mutex sync.Mutex
	var latencies []float64
	var workers sync.WaitGroup
	for range connections {
		workers.Go(func() {
			var mine []float64
			for {
				at := time.Now()
				if rate > 0 {
					var more bool
					if at, more = <-due; !more {
						break
					}
				} else if at.After(end) {
					break
				}
				post()
				mine = append(mine, float64(time.Since(at).Microseconds())/1000)
			}
			mutex.Lock()
			latencies = append(latencies, mine...)
			mutex.Unlock()
		})
	}
	for i := range int(rate * seconds) {
		at := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		time.Sleep(time.Until(at))
		due <- at
	}
	close(due)
	workers.Wait()
	sort.Float64s(latencies)
	at := func(share float64) float64 { return latencies[int(share*float64(len(latencies)-1))] }
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"ok": ok.Load(), "bad": bad.Load(),
		"seconds": time.Since(start).Seconds(), "p50_ms": at(0.5), "p99_ms": at(0.99)})
}
