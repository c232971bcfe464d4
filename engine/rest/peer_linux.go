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

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Why a peer is not let in, besides its cgroup.
var (
	errUser   = errors.New("the peer is of another user")
	errNobody = errors.New("no process holds the peer's socket")
)

// checkPeer lets a connection pass whose other end belongs to processes of this user or root, all in cgroups that are not a
// container's.
func checkPeer(conn net.Conn, own cgroups) error {
	local, remote, err := endpoints(conn)
	if err != nil {
		return err
	}
	s, err := lookUp(remote, local)
	if err != nil {
		return fmt.Errorf("look up the peer's socket: %w", err)
	}
	if s.uid != 0 && s.uid != uint32(os.Geteuid()) {
		return errUser
	}
	holders, err := holdersOf(s.inode)
	if err != nil {
		return err
	}
	if len(holders) == 0 {
		return errNobody
	}
	for _, pid := range holders {
		c, err := cgroupsOf(pid)
		if err != nil {
			return err
		}
		if err := own.check(c); err != nil {
			return err
		}
	}
	return nil
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
type socket struct{ uid, inode uint32 }

// lookUp asks sock_diag(7) for the one TCP socket with these endpoints.
func lookUp(local, remote netip.AddrPort) (socket, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, 0)
	req.AddRawData(diagRequest(local, remote))
	answers, err := req.Execute(unix.NETLINK_SOCK_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return socket{}, err
	}
	if len(answers) != 1 || len(answers[0]) < diagAnswerSize {
		return socket{}, errors.New("unexpected answer of sock_diag")
	}
	return socket{
		uid:   binary.NativeEndian.Uint32(answers[0][64:]),
		inode: binary.NativeEndian.Uint32(answers[0][68:]),
	}, nil
}

// Sizes of struct inet_diag_req_v2 and inet_diag_msg, linux/inet_diag.h.
const (
	diagRequestSize = 56
	diagAnswerSize  = 72
)

// diagRequest is a struct inet_diag_req_v2 for exactly one socket.
func diagRequest(local, remote netip.AddrPort) []byte {
	b := make([]byte, diagRequestSize)
	b[0] = unix.AF_INET6
	if local.Addr().Is4() {
		b[0] = unix.AF_INET
	}
	b[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpEstablished)
	binary.BigEndian.PutUint16(b[8:], local.Port())
	binary.BigEndian.PutUint16(b[10:], remote.Port())
	copy(b[12:28], local.Addr().AsSlice())
	copy(b[28:44], remote.Addr().AsSlice())
	binary.NativeEndian.PutUint64(b[48:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

// tcpEstablished is TCP_ESTABLISHED, net/tcp_states.h.
const tcpEstablished = 1

// holdersOf finds the processes that have a socket open.
func holdersOf(inode uint32) ([]string, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find the peer's process: %w", err)
	}
	link := fmt.Sprintf("socket:[%d]", inode)
	var holders []string
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		if holds(p.Name(), link) {
			holders = append(holders, p.Name())
		}
	}
	return holders, nil
}

// holds says whether a process has an open file of that name. One that ended, or that may not be looked at, has none.
func holds(pid, link string) bool {
	dir := filepath.Join("/proc", pid, "fd")
	files, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, f := range files {
		if to, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && to == link {
			return true
		}
	}
	return false
}
