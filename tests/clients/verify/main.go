// A backend that believes nobody: it reads one token a line, verifies each with a library of its own (go-jose) by a
// key set, and prints its claims, or why not.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

type answer struct {
	Claims map[string]any `json:"claims,omitempty"`
	Kid    string         `json:"kid,omitempty"`
	Error  string         `json:"error,omitempty"`
}

func main() {
	keys := flag.String("keys", "", "file with the key set")
	issuer := flag.String("issuer", "", "who must have signed")
	audience := flag.String("audience", "", "whom it must be for")
	certificate := flag.String("certificate", "", "the certificate that it must be bound to")
	flag.Parse()

	text, err := os.ReadFile(*keys)
	check(err)
	var set jose.JSONWebKeySet
	check(json.Unmarshal(text, &set))
	thumbprint := ""
	if *certificate != "" {
		text, err := os.ReadFile(*certificate)
		check(err)
		block, _ := pem.Decode(text)
		leaf, err := x509.ParseCertificate(block.Bytes)
		check(err)
		sum := sha256.Sum256(leaf.Raw)
		thumbprint = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a answer
		if err := verify(lines.Text(), &set, *issuer, *audience, thumbprint, &a); err != nil {
			a = answer{Error: err.Error()}
		}
		out, err := json.Marshal(a)
		check(err)
		fmt.Println(string(out))
	}
}

func verify(text string, set *jose.JSONWebKeySet, issuer, audience, thumbprint string, a *answer) error {
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	var standard jwt.Claims
	var binding struct {
		Confirmation struct {
			Thumbprint string `json:"x5t#S256"`
		} `json:"cnf"`
	}
	if err := token.Claims(set, &standard, &binding, &a.Claims); err != nil {
		return err
	}
	expected := jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{audience}, Time: time.Now()}
	if err := standard.ValidateWithLeeway(expected, 0); err != nil {
		return err
	}
	if binding.Confirmation.Thumbprint != thumbprint {
		return fmt.Errorf("bound to another certificate: %q", binding.Confirmation.Thumbprint)
	}
	a.Kid = token.Headers[0].KeyID
	return nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
