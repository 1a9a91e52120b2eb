//go:build tools

// Package helmunittest keeps the program that `build` compiles in go.mod: its own go.mod replaces a module, which
// `go install` refuses.
package helmunittest

import _ "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"
