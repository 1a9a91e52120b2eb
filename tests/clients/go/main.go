// A client that keeps its connection: it reads one path a line, and prints one JSON object for each answer.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
)

type answer struct {
	Status  int    `json:"status"`
	Proto   string `json:"proto"`
	TLS     string `json:"tls"`
	Reused  bool   `json:"reused"`
	Resumed bool   `json:"resumed"`
	Body    string `json:"body"`
	Error   string `json:"error,omitempty"`
}

var authorization string

func main() {
	connect := flag.String("connect", "", "address to connect to, whatever the host")
	host := flag.String("host", "", "host and port of the requests")
	ca := flag.String("ca", "", "file with the server's CA")
	cert := flag.String("cert", "", "client certificate")
	key := flag.String("key", "", "its key")
	h2 := flag.Bool("http2", false, "HTTP/2")
	tls12 := flag.Bool("tls12", false, "TLS 1.2 at most")
	again := flag.Bool("again", false, "a new connection for each request, resumed if the server lets it")
	flag.StringVar(&authorization, "authorization", "", "the value of Authorization")
	flag.Parse()

	roots := x509.NewCertPool()
	pem, err := os.ReadFile(*ca)
	check(err)
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	if *tls12 {
		config.MaxVersion = tls.VersionTLS12
	}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		check(err)
		// Whatever CAs the server names: a wrong certificate is to be sent, too.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: *h2,
		DisableKeepAlives: *again,
		DialContext: func(c context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(c, network, *connect)
		},
	}
	if !*h2 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	asItComes := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{Transport: transport, CheckRedirect: asItComes}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		out, err := json.Marshal(get(client, "https://"+*host+lines.Text()))
		check(err)
		fmt.Println(string(out))
	}
}

func get(client *http.Client, url string) answer {
	var a answer
	request, err := http.NewRequest("GET", url, nil)
	check(err)
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { a.Reused = info.Reused }}
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		a.Error = err.Error()
		return a
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.Error = err.Error()
	}
	a.Status, a.Proto, a.Body = response.StatusCode, response.Proto, string(body)
	a.TLS, a.Resumed = tls.VersionName(response.TLS.Version), response.TLS.DidResume
	return a
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
