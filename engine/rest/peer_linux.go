// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Why a peer is not let in, besides its cgroup.
var (
	errUser    = errors.New("the peer is of another user")
	errForeign = errors.New("no process of the guest's own holds the peer's socket")
	errTooMany = errors.New("too many connections wait to be identified")
	errDiag    = errors.New("unexpected answer of sock_diag")
)

// peerOf is the socket at the other end of a connection, of a process of this user or root.
func peerOf(conn net.Conn) (socket, error) {
	local, remote, err := endpoints(conn)
	if err != nil {
		return socket{}, err
	}
	s, err := lookUp(remote, local)
	if err != nil {
		return socket{}, fmt.Errorf("look up the peer's socket: %w", err)
	}
	if s.uid != 0 && s.uid != uint32(os.Geteuid()) {
		return socket{}, errUser
	}
	return s, nil
}

func endpoints(conn net.Conn) (local, remote netip.AddrPort, err error) {
	l, ok := conn.LocalAddr().(*net.TCPAddr)
	r, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !ok2 {
		return local, remote, errors.New("not a TCP connection")
	}
	return unmapped(l), unmapped(r), nil
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// socket is what the kernel says of one.
type socket struct {
	uid, inode uint32
	cgroup     uint64 // of cgroup v2, in which the socket was made; 0: not said
}

// lookUp asks sock_diag(7) for the one TCP socket with these endpoints.
func lookUp(local, remote netip.AddrPort) (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return socket{}, fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(fd, diagRequest(local, remote), 0, kernel); err != nil {
		return socket{}, fmt.Errorf("ask sock_diag: %w", err)
	}
	// The kernel answers within the call above, so there is nothing to wait for.
	answer := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT)
	if err != nil {
		return socket{}, fmt.Errorf("read sock_diag: %w", err)
	}
	if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 {
		return socket{}, errDiag
	}
	return parseDiag(answer[:n])
}

// Sizes of struct nlmsghdr, linux/netlink.h, and of struct inet_diag_req_v2 and inet_diag_msg, linux/inet_diag.h.
const (
	headerSize  = unix.NLMSG_HDRLEN
	requestSize = 56
	answerSize  = 72
)

const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY, linux/sock_diag.h
	tcpEstablished   = 1  // TCP_ESTABLISHED, net/tcp_states.h
)

// diagRequest is a netlink message with a struct inet_diag_req_v2 for exactly one socket.
func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, headerSize+requestSize)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	r := b[headerSize:]
	r[0] = unix.AF_INET6
	if local.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	r[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<tcpEstablished)
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], local.Addr().AsSlice())
	copy(r[28:44], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint64(r[48:], ^uint64(0)) // INET_DIAG_NOCOOKIE, twice
	return b
}

// parseDiag reads the kernel's answer: one struct inet_diag_msg, or an errno such as ENOENT.
func parseDiag(b []byte) (socket, error) {
	if len(b) < headerSize+4 || int(binary.NativeEndian.Uint32(b)) > len(b) {
		return socket{}, errDiag
	}
	body := b[headerSize:]
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.NLMSG_ERROR:
		return socket{}, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	case sockDiagByFamily:
		if len(body) < answerSize {
			return socket{}, errDiag
		}
		return socket{uid: binary.NativeEndian.Uint32(body[64:]), inode: binary.NativeEndian.Uint32(body[68:]),
			cgroup: cgroupAttribute(body[answerSize:])}, nil
	}
	return socket{}, errDiag
}

// cgroupAttribute finds INET_DIAG_CGROUP_ID among the attributes behind a struct inet_diag_msg, which a kernel adds that keeps the
// cgroup of a socket.
func cgroupAttribute(b []byte) uint64 {
	const inetDiagCgroupID = 21
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return 0
		}
		if binary.NativeEndian.Uint16(b[2:]) == inetDiagCgroupID && size >= unix.SizeofRtAttr+8 {
			return binary.NativeEndian.Uint64(b[unix.SizeofRtAttr:])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return 0
}

// socketsOf finds the sockets of all processes that are in no container, each with a process that holds it: of no other are the open
// files looked at.
func socketsOf(own cgroups) (map[uint32]string, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find the peer's process: %w", err)
	}
	held := map[uint32]string{}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err == nil {
			addSockets(held, p.Name(), own)
		}
	}
	return held, nil
}

// addSockets adds the sockets that a process has open, unless it is in a cgroup that may be a container's. One that ended, or that
// may not be looked at, has none.
func addSockets(held map[uint32]string, pid string, own cgroups) {
	c, err := cgroupsOf(pid)
	if err != nil || own.check(c) != nil {
		return
	}
	dir := filepath.Join("/proc", pid, "fd")
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, f := range files {
		to, err := os.Readlink(filepath.Join(dir, f.Name()))
		if err != nil {
			continue
		}
		if number, ok := strings.CutPrefix(to, "socket:["); ok {
			if inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32); err == nil {
				held[uint32(inode)] = pid
			}
		}
	}
}
