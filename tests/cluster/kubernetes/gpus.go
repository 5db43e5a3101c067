package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// fakeGPUs is a device plugin with no device behind it. The kubelet counts, allocates and takes back its GPUs
// exactly as it does real ones, which a patched node status would not exercise.
type fakeGPUs struct {
	deviceplugin.UnimplementedDevicePluginServer
	devices []*deviceplugin.Device
}

// serveFakeGPUs registers the GPUs with the kubelet and serves them until the kubelet goes away. The kubelet
// forgets its plugins and removes their sockets when it starts, so the registration is repeated then.
func serveFakeGPUs(arguments []string) error {
	flags := flag.NewFlagSet("fake-gpu-plugin", flag.ContinueOnError)
	resource := flags.String("resource", "nvidia.com/gpu", "the extended resource to offer")
	count := flags.Int("count", 4, "how many of it")
	folder := flags.String("plugin-dir", deviceplugin.DevicePluginPath, "where the kubelet's plugin socket is")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	gpus := &fakeGPUs{}
	for index := range *count {
		gpus.devices = append(gpus.devices,
			&deviceplugin.Device{ID: fmt.Sprintf("fake-%d", index), Health: deviceplugin.Healthy})
	}
	for {
		if err := gpus.serveOnce(*folder, *resource); err != nil {
			fmt.Fprintf(os.Stderr, "%v; trying again in a second\n", err)
		}
		time.Sleep(time.Second)
	}
}

func (gpus *fakeGPUs) serveOnce(folder, resource string) error {
	socket := filepath.Join(folder, "fake-gpu.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("cannot listen where the kubelet looks for plugins: %w", err)
	}
	server := grpc.NewServer()
	deviceplugin.RegisterDevicePluginServer(server, gpus)
	go server.Serve(listener)
	defer server.Stop()
	if err := register(filepath.Join(folder, "kubelet.sock"), filepath.Base(socket), resource); err != nil {
		return fmt.Errorf("the kubelet did not take the registration: %w", err)
	}
	fmt.Printf("offering %d %s\n", len(gpus.devices), resource)
	for ; err == nil; _, err = os.Lstat(socket) {
		time.Sleep(time.Second)
	}
	return fmt.Errorf("the kubelet removed the plugin's socket: %w", err)
}

func register(kubelet, endpoint, resource string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = deviceplugin.NewRegistrationClient(connection).Register(ctx, &deviceplugin.RegisterRequest{
		Version: deviceplugin.Version, Endpoint: endpoint, ResourceName: resource,
		Options: &deviceplugin.DevicePluginOptions{}})
	return err
}

func (gpus *fakeGPUs) GetDevicePluginOptions(
	context.Context, *deviceplugin.Empty) (*deviceplugin.DevicePluginOptions, error) {
	return &deviceplugin.DevicePluginOptions{}, nil
}

func (gpus *fakeGPUs) ListAndWatch(
	_ *deviceplugin.Empty, stream deviceplugin.DevicePlugin_ListAndWatchServer) error {
	if err := stream.Send(&deviceplugin.ListAndWatchResponse{Devices: gpus.devices}); err != nil {
		return err
	}
	<-stream.Context().Done() // the list never changes: hold the stream, for its end means "all devices gone"
	return nil
}

// Allocate tells the container which GPUs are its own, in the variable that NVIDIA's runtime reads.
func (gpus *fakeGPUs) Allocate(
	_ context.Context, request *deviceplugin.AllocateRequest) (*deviceplugin.AllocateResponse, error) {
	response := &deviceplugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		response.ContainerResponses = append(response.ContainerResponses, &deviceplugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}})
	}
	return response, nil
}
