// Program is the only file of a container's rootfs in the tests: it does what the name says that it was started by.
package main

import (
	"io"
	"os"
	"path"
	"strings"
	"time"
)

func main() {
	switch path.Base(os.Args[0]) {
	case "sleep":
		time.Sleep(time.Hour)
	case "echo":
		os.Stdout.WriteString(strings.Join(os.Args[1:], " ") + "\n")
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
	case "source":
		for chunk := make([]byte, 1<<16); ; {
			if _, err := os.Stdout.Write(chunk); err != nil {
				os.Exit(1)
			}
		}
	case "sink":
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "probe":
	case "false":
		os.Exit(1)
	default:
		os.Exit(127)
	}
}
