// SPDX-License-Identifier: Apache-2.0

//go:build race

package gate

import "net"

// quick leaves a connection as it is: the race detector knows of what sockets carry by Go's own reads and writes.
func quick(conn net.Conn) net.Conn { return conn }
