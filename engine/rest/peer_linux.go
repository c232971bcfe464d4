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

	"golang.org/x/sys/unix"
)

// Why a peer is not let in, besides its cgroup.
var (
	errUser   = errors.New("the peer is of another user")
	errNobody = errors.New("no process holds the peer's socket")
	errDiag   = errors.New("unexpected answer of sock_diag")
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
		return socket{uid: binary.NativeEndian.Uint32(body[64:]), inode: binary.NativeEndian.Uint32(body[68:])}, nil
	}
	return socket{}, errDiag
}

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
