package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// forwardTCP hands every connection on. The API server listens on the machine's loopback, where pods cannot reach
// it; this listens for it at the address that pods are told, so that no packet filter has to be changed.
func forwardTCP(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: forward-tcp LISTEN_ADDRESS TARGET_ADDRESS, both as host:port")
	}
	listener, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return fmt.Errorf("cannot listen where pods expect the API server: %w", err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go forward(connection.(*net.TCPConn), arguments[1])
	}
}

func forward(from *net.TCPConn, target string) {
	defer from.Close()
	dialled, err := net.Dial("tcp", target)
	if err != nil {
		fmt.Fprintf(os.Stderr, "cannot reach the API server: %v\n", err)
		return
	}
	to := dialled.(*net.TCPConn)
	defer to.Close()
	go pipe(to, from)
	pipe(from, to)
}

// pipe copies one direction, and passes on its end: the other direction may still have something to say.
func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil && !errors.Is(err, net.ErrClosed) {
		fmt.Fprintf(os.Stderr, "a connection from %v broke: %v\n", from.RemoteAddr(), err)
	}
	to.CloseWrite()
}
