import { defineConfig } from 'vite';
import react from '@vitejs/plugin-react';

export default defineConfig({
  plugins: [react()],
  resolve: { dedupe: ['react', 'react-dom'] },
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  build: { minify: false, chunkSizeWarningLimit: 99999, rollupOptions: { shimMissingExports: true } },
  preview: {
    host: '127.0.0.1',
    port: 19200,
    proxy: { '/prom': { target: process.env.PROMETHEUS, rewrite: (path) => path.replace(/^\/prom/, '') } },
  },
});
