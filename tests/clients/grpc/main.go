// A gRPC server and client of all four call kinds. Messages are octets: there is nothing to generate.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Octets as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte{}, data...); return nil }
func (raw) Name() string                       { return "raw" }

func main() {
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2:])
	case "call":
		err = call(os.Args[2:])
	default:
		err = fmt.Errorf("serve or call")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve prints its address, and serves until its standard input ends.
func serve(arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	cert := flags.String("cert", "", "certificate: TLS")
	key := flags.String("key", "", "its key")
	clients := flags.String("clients", "", "file with the CA of clients, who must show a certificate")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	options := []grpc.ServerOption{grpc.ForceServerCodec(raw{})}
	if *cert != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return err
		}
		config := &tls.Config{Certificates: []tls.Certificate{pair}}
		if *clients != "" {
			if config.ClientCAs, err = pool(*clients); err != nil {
				return err
			}
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Server", Handler: serverStream, ServerStreams: true},
			{StreamName: "Client", Handler: clientStream, ClientStreams: true},
			{StreamName: "Both", Handler: both, ServerStreams: true, ClientStreams: true},
		},
	}, nil)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

// unary answers with the message and who is said to be calling; "fail" fails.
func unary(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var in []byte
	if err := decode(&in); err != nil {
		return nil, err
	}
	grpc.SetTrailer(ctx, metadata.Pairs("x-checksum", fmt.Sprint(len(in))))
	if string(in) == "fail" {
		return nil, status.Error(codes.FailedPrecondition, "as asked: 100%")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	out := []byte(string(in) + " " + strings.Join(md.Get("x-remote-user"), ","))
	return &out, nil
}

func serverStream(_ any, stream grpc.ServerStream) error {
	var in []byte
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	for i := range 3 {
		out := []byte(fmt.Sprintf("%s %d", in, i))
		if err := stream.SendMsg(&out); err != nil {
			return err
		}
	}
	return nil
}

func clientStream(_ any, stream grpc.ServerStream) error {
	count, octets := 0, 0
	for {
		var in []byte
		if err := stream.RecvMsg(&in); err == io.EOF {
			out := []byte(fmt.Sprintf("%d messages, %d octets", count, octets))
			return stream.SendMsg(&out)
		} else if err != nil {
			return err
		}
		count, octets = count+1, octets+len(in)
	}
}

func both(_ any, stream grpc.ServerStream) error {
	for {
		var in []byte
		if err := stream.RecvMsg(&in); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		out := []byte("echo " + string(in))
		if err := stream.SendMsg(&out); err != nil {
			return err
		}
	}
}

// said is what a call came to.
type said struct {
	Messages []string            `json:"messages"`
	Code     string              `json:"code"`
	Message  string              `json:"message"`
	Trailers map[string][]string `json:"trailers"`
}

// call makes one call of each kind, and prints what each came to.
func call(arguments []string) error {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	connect := flags.String("connect", "", "address to connect to")
	host := flags.String("host", "", "the authority")
	ca := flags.String("ca", "", "file with the server's CA: TLS")
	cert := flags.String("cert", "", "client certificate")
	key := flags.String("key", "", "its key")
	message := flags.String("message", "hello", "what a unary call sends")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	security := insecure.NewCredentials()
	if *ca != "" {
		config := &tls.Config{ServerName: *host}
		var err error
		if config.RootCAs, err = pool(*ca); err != nil {
			return err
		}
		if *cert != "" {
			pair, err := tls.LoadX509KeyPair(*cert, *key)
			if err != nil {
				return err
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		security = credentials.NewTLS(config)
	}
	client, err := grpc.NewClient("passthrough:///"+*connect, grpc.WithTransportCredentials(security), grpc.WithAuthority(*host),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		return err
	}
	defer client.Close()
	results := map[string]said{
		"unary":  unaryCall(client, *message),
		"server": streamCall(client, "Server", []string{"one"}, false, true),
		"client": streamCall(client, "Client", []string{"one", "two", strings.Repeat("x", 1<<20)}, true, false),
		"both":   streamCall(client, "Both", []string{"one", "two", "three"}, true, true),
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func unaryCall(client *grpc.ClientConn, message string) said {
	in, out := []byte(message), []byte{}
	var trailers metadata.MD
	// A client cannot name itself.
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-remote-user", "root")
	err := client.Invoke(ctx, "/test.Echo/Unary", &in, &out, grpc.Trailer(&trailers))
	return of([]string{string(out)}, err, trailers)
}

// streamCall waits for an answer to each message where both sides stream.
func streamCall(client *grpc.ClientConn, method string, messages []string, sends, receives bool) said {
	description := &grpc.StreamDesc{StreamName: method, ClientStreams: sends, ServerStreams: receives}
	stream, err := client.NewStream(context.Background(), description, "/test.Echo/"+method)
	if err != nil {
		return of(nil, err, nil)
	}
	var answers []string
	receive := func() error {
		var out []byte
		err := stream.RecvMsg(&out)
		if err == nil {
			answers = append(answers, string(out))
		}
		return err
	}
	for _, message := range messages {
		in := []byte(message)
		if err = stream.SendMsg(&in); err != nil {
			break
		}
		if sends && receives {
			if err = receive(); err != nil {
				return of(answers, err, stream.Trailer())
			}
		}
	}
	stream.CloseSend()
	for {
		if err = receive(); err == io.EOF {
			return of(answers, nil, stream.Trailer())
		} else if err != nil {
			return of(answers, err, stream.Trailer())
		}
		if !receives {
			return of(answers, nil, stream.Trailer())
		}
	}
}

func of(messages []string, err error, trailers metadata.MD) said {
	s, _ := status.FromError(err)
	return said{messages, s.Code().String(), s.Message(), trailers}
}

func pool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return roots, nil
}
